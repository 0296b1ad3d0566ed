"""Listening sockets: made from an address, taken over from whoever started us, and let go without losing anybody.

Facts, and what follows:

* `SO_REUSEPORT` gives each thread or process a listener of its own, and the kernel shares the connections out. What is
  queued on a listener when it is closed is reset, also if another one of the same port lives on. So a listener is drained
  before it is closed: what is in its queue is accepted.
* The file of a unix socket stays behind when its server is killed, and `bind` then fails. Whether somebody listens there is
  asked by connecting; only a socket on which nobody answers is removed.
* The permissions of a unix socket decide who may connect, and there must be no moment at which they are too wide. So it
  is bound under a private name, gets its mode and owner, and is then given its own name by `rename`, which also replaces
  a stale one in one step.
* systemd passes listeners from fd 3 on, and says for which process they are meant (`LISTEN_PID`): a child that inherits the
  environment must not take them.
"""

import errno
import os
import stat
import tempfile
from typing import Any, Final

from ..io import socket

#: Connections that the kernel keeps for us until they are accepted. (It caps this by its own limit.)
BACKLOG: Final = 4096
#: The first fd that systemd passes.
FIRST_PASSED: Final = 3


def listen_tcp(
    host: str, port: int, *, backlog: int = BACKLOG, reuse_port: bool = False, dual_stack: bool = False
) -> socket.socket:
    """A listener on a TCP port; port 0: a free one. `host` "" stands for all addresses.

    Raises OSError with the address in its text. `reuse_port`: others may listen on the same port, too, if they ask for it.
    """
    family = socket.AF_INET6 if ":" in host or dual_stack else socket.AF_INET
    try:
        return socket.create_server(
            (host, port), family=family, backlog=backlog, reuse_port=reuse_port, dualstack_ipv6=dual_stack
        )
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, f"cannot listen on {host or '*'} port {port}: {error.strerror}") from error


def listen_unix(
    path: str, *, backlog: int = BACKLOG, mode: int = 0o666, user: int = -1, group: int = -1
) -> socket.socket:
    """A listener on a unix socket at `path`, with that mode and owner (ids; -1: as they come) from its first moment on.

    A stale socket there is replaced. Raises OSError (EADDRINUSE) if somebody listens there, or if it is no socket. A path
    that begins with a NUL is an abstract address: it has no file, no mode and no owner.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        if path.startswith("\0"):
            listener.bind(path)
        else:
            _check_stale(path)
            _bind_privately(listener, path, mode, user, group)
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def _check_stale(path: str) -> None:
    """Raise if there is something at `path` that is not to be replaced."""
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(errno.EADDRINUSE, f"{path} exists and is no socket; remove it, or choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except TimeoutError:
            pass  # somebody listens, and is busy
    raise OSError(errno.EADDRINUSE, f"somebody listens on {path} already")


def _bind_privately(listener: socket.socket, path: str, mode: int, user: int, group: int) -> None:
    folder = tempfile.mkdtemp(prefix=".fibers-", dir=os.path.dirname(os.path.abspath(path)))
    try:
        private = os.path.join(folder, "socket")
        listener.bind(private)
        os.chmod(private, mode)
        if user != -1 or group != -1:
            os.chown(private, user, group)
        os.rename(private, path)
    finally:
        os.rmdir(folder)


def passed_listeners() -> list[tuple[str, socket.socket]]:
    """The listeners that systemd has passed to this process, with their names; none if it has not.

    To be called once: the environment variables are removed, so that no child takes them for its own. Raises ValueError
    if the variables make no sense, OSError if what was passed are no listening sockets.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "")
    if not pid or not count:
        return []
    if not pid.isdecimal() or not count.isdecimal():
        raise ValueError(f"LISTEN_PID={pid!r} and LISTEN_FDS={count!r} are to be numbers")
    if int(pid) != os.getpid():
        return []
    found = []
    for place in range(int(count)):
        fd = FIRST_PASSED + place
        os.set_inheritable(fd, False)
        listener = socket.socket(fileno=fd)
        if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError(errno.EINVAL, f"fd {fd}, passed by LISTEN_FDS, is no listening socket")
        name = names.split(":")[place] if names.count(":") == int(count) - 1 else ""
        found.append((name, listener))
    return found


def notify(state: str) -> bool:
    """Tell systemd about this service ("READY=1", "STOPPING=1", "STATUS=…"); False if it does not listen.

    Any thread. Raises OSError if it cannot be told.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    address: Any = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), address)
    return True
