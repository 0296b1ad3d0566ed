"""Listening sockets: made from an address, one for each loop, and let go without losing anybody.

Facts, and what follows:

* On Linux `SO_REUSEPORT` gives each loop a listener of its own, and the kernel shares the connections out by a hash. Where
  it does not share them out (macOS gives all to the newest listener), each loop has a duplicate of one listener.
* Whoever sets `SO_REUSEPORT` also lets another server of the same user onto the port, by mistake, and half of the clients
  go there. So, unless that is asked for, the port is first bound without it, which fails if anybody listens.
* What is queued on a listener when its last descriptor is closed is reset, also if another one of the same port lives on.
  So a listener is drained before it is closed: what is in its queue is accepted (accepting.py).
* Accepted sockets inherit TCP_NODELAY from their listener on the systems we know: one call instead of one for each.
* The file of a unix socket stays behind when its server is killed, and `bind` then fails. Whether somebody listens there is
  asked by connecting; only a socket on which nobody answers is removed.
* The permissions of a unix socket decide who may connect, and there must be no moment at which they are too wide. So it
  is bound under a private name, gets its mode and owner, and is then given its own name by `rename`, which also replaces
  a stale one in one step. (The kernel goes on telling the private name: we know the other.)
"""

import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Sequence
from socket import getaddrinfo
from socket import socket as std_socket
from typing import Any, Final, Protocol

from ..io import socket

#: Connections that the kernel keeps for us until they are accepted. (It caps this by its own limit.)
BACKLOG: Final = 4096
#: Bytes in the path of a unix socket.
LONGEST_PATH: Final = 107
#: Does the kernel share connections out among listeners of one port?
BALANCED: Final = sys.platform == "linux"


class Endpoint(Protocol):
    """Where a server listens."""

    def open(self, shares: int) -> list[list[socket.socket]]:
        """For each address that it comes to, `shares` listeners. Raises OSError, with the address in its text."""

    def one_more(self, share: Sequence[socket.socket]) -> list[socket.socket]:
        """The listeners of one more share, given those of another one. Raises OSError."""

    def names(self) -> list[Any]:
        """Those addresses, in the same order. Once it is open."""

    def remove(self) -> None:
        """The last listener is closed: leave nothing behind."""


class InternetEndpoint:
    """A port of a host: TCP, or UDP with `kind` SOCK_DGRAM.

    `host` may be a name, which is looked up at once, in a blocking way; "" or None stands for all addresses, of IPv4 and
    IPv6. Port 0: a free one, the same for all.
    """

    def __init__(
        self,
        host: str | None,
        port: int,
        *,
        kind: int = socket.SOCK_STREAM,
        backlog: int = BACKLOG,
        shared: bool = False,
    ) -> None:
        self._host = host or None
        self._port = port
        self._kind = kind
        self._backlog = backlog
        self._shared = shared
        self._names: list[Any] = []

    def open(self, shares: int) -> list[list[socket.socket]]:
        found = getaddrinfo(self._host, self._port, type=self._kind, flags=socket.AI_PASSIVE)
        found = sorted(dict.fromkeys(found), key=lambda each: each[0] != socket.AF_INET)
        port, opened, missing = self._port, [], None
        try:
            for family, _, _, _, address in found:
                target = (address[0], port, *address[2:])
                try:
                    opened.append(self._open_one(family, target, shares))
                except OSError as error:
                    if len(found) > 1 and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                        missing = error  # a host without IPv6 knows the name ::1 all the same
                        continue
                    raise
                self._names.append(opened[-1][0].getsockname())
                port = self._names[-1][1]
        except BaseException:
            close_all(opened)
            raise
        if not opened:
            raise missing or OSError(errno.EADDRNOTAVAIL, f"no address is known for {self._host!r}")
        return opened

    def one_more(self, share: Sequence[socket.socket]) -> list[socket.socket]:
        made: list[socket.socket] = []
        try:
            for each in share:
                if not BALANCED or not each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
                    made.append(each.dup())
                    continue
                made.append(self._bind(each.family, each.getsockname(), True))
                if self._kind == socket.SOCK_STREAM:
                    made[-1].listen(self._backlog)
        except BaseException:
            close_all([made])
            raise
        return made

    def names(self) -> list[Any]:
        return self._names

    def remove(self) -> None:
        pass

    def _open_one(self, family: int, address: Any, shares: int) -> list[socket.socket]:
        several = BALANCED and shares > 1
        made: list[socket.socket] = []
        try:
            if several and not self._shared and address[1]:
                self._bind(family, address, False).close()
            for _ in range(shares if several else 1):
                made.append(self._bind(family, address, several or self._shared))
                address = made[0].getsockname()
            for listener in made:
                if self._kind == socket.SOCK_STREAM:
                    listener.listen(self._backlog)
        except OSError as error:
            close_all([made])
            where = f"cannot listen on {self._host or '*'} port {address[1]}"
            raise OSError(error.errno, f"{where}: {error.strerror}") from error
        while len(made) < shares:
            made.append(made[0].dup())
        return made

    def _bind(self, family: int, address: Any, reuse_port: bool) -> socket.socket:
        listener = socket.socket(family, self._kind)
        try:
            if self._kind == socket.SOCK_STREAM:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if reuse_port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
        return listener


class UnixEndpoint:
    """A unix socket at `path`, with that mode and owner (names or ids; None: as they come) from its first moment on.

    A stale socket there is replaced. EADDRINUSE if somebody listens there, or if it is no socket. A path that begins with
    a NUL is an abstract address: it has no file, no mode and no owner.
    """

    def __init__(
        self,
        path: str,
        *,
        backlog: int = BACKLOG,
        mode: int = 0o666,
        user: str | int | None = None,
        group: str | int | None = None,
    ) -> None:
        self._path = path
        self._backlog = backlog
        self._mode = mode
        self._owner = (user, group)
        self._file: tuple[int, int] | None = None  # device and inode of what we have made

    def open(self, shares: int) -> list[list[socket.socket]]:
        listener = socket.socket(socket.AF_UNIX)
        try:
            if self._path.startswith("\0"):
                listener.bind(self._path)
                listener.listen(self._backlog)
            else:
                _check_stale(self._path)
                self._bind_privately(listener)
        except BaseException:
            listener.close()
            raise
        return [[listener, *(listener.dup() for _ in range(shares - 1))]]

    def one_more(self, share: Sequence[socket.socket]) -> list[socket.socket]:
        return [each.dup() for each in share]

    def names(self) -> list[Any]:
        return [self._path]

    def remove(self) -> None:
        try:
            if self._file is not None and _identity(os.lstat(self._path)) == self._file:
                os.unlink(self._path)
        except FileNotFoundError:
            pass  # somebody has tidied up
        self._file = None

    def _bind_privately(self, listener: socket.socket) -> None:
        path = self._path
        folder = tempfile.mkdtemp(prefix=".s", dir=os.path.dirname(os.path.abspath(path)))
        private = os.path.join(folder, "s")
        try:
            _bind_file(listener, private)
            os.chmod(private, self._mode)
            if self._owner != (None, None):
                _chown(private, *self._owner)
            listener.listen(self._backlog)
            self._file = _identity(os.lstat(private))
            os.rename(private, path)
        except BaseException:
            if os.path.lexists(private):
                os.unlink(private)
            raise
        finally:
            os.rmdir(folder)


class GivenEndpoint:
    """A socket that listens already: passed by systemd, or made by the caller. It stays his; a duplicate is used."""

    def __init__(self, listener: std_socket) -> None:
        if listener.type == socket.SOCK_STREAM and not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError(f"{listener!r} does not listen: call its listen() first, or give its address instead")
        self._listener = listener

    def open(self, shares: int) -> list[list[socket.socket]]:
        given = self._listener
        fd = given.fileno()
        return [[socket.fromfd(fd, given.family, given.type, given.proto) for _ in range(shares)]]

    def one_more(self, share: Sequence[socket.socket]) -> list[socket.socket]:
        return [each.dup() for each in share]

    def names(self) -> list[Any]:
        return [self._listener.getsockname()]

    def remove(self) -> None:
        pass


def open_all(endpoints: Sequence[Endpoint], shares: int) -> list[list[socket.socket]]:
    """For each share its listeners, one for each address. All of them, or none."""
    columns: list[list[socket.socket]] = []
    opened: list[Endpoint] = []
    try:
        for endpoint in endpoints:
            columns += endpoint.open(shares)
            opened.append(endpoint)
    except BaseException:
        close_all(columns)
        for endpoint in opened:
            endpoint.remove()
        raise
    return [list(row) for row in zip(*columns, strict=True)]


def open_more(endpoints: Sequence[Endpoint], share: Sequence[socket.socket]) -> list[socket.socket]:
    """The listeners of one more share, given those of another one."""
    made: list[socket.socket] = []
    rest = iter(share)
    try:
        for endpoint in endpoints:
            made += endpoint.one_more([next(rest) for _ in endpoint.names()])
    except BaseException:
        close_all([made])
        raise
    return made


def close_all(rows: Sequence[Sequence[socket.socket]]) -> None:
    """Close them."""
    for row in rows:
        for listener in row:
            listener.close()


def endpoints_of(address: Any, *, kind: int = socket.SOCK_STREAM, backlog: int, shared: bool) -> list[Endpoint]:
    """What a server was given as its address or addresses: (host, port), a port, a listening socket, or a list of them."""
    if isinstance(address, list):
        if not address:
            raise ValueError("a server needs at least one address")
        return [found for each in address for found in endpoints_of(each, kind=kind, backlog=backlog, shared=shared)]
    if isinstance(address, std_socket):
        if address.type != kind:
            raise ValueError(f"{address!r} is not of type {socket.SocketKind(kind).name}")
        return [GivenEndpoint(address)]
    host, port = (None, address) if isinstance(address, int) else address if _is_pair(address) else (None, None)
    if port is None or isinstance(port, bool) or not 0 <= port <= 65_535:
        raise ValueError(
            f"an address is (host, port) with a port from 0 to 65535, such a port, or a listening socket, not {address!r}"
        )
    return [InternetEndpoint(host, port, kind=kind, backlog=backlog, shared=shared)]


def _is_pair(address: Any) -> bool:
    return (
        isinstance(address, tuple)
        and len(address) == 2
        and isinstance(address[0], str | None)
        and isinstance(address[1], int)
    )


def _bind_file(listener: socket.socket, path: str) -> None:
    """`bind`, also where the path is too long because of the folder that we have made."""
    if len(os.fsencode(path)) <= LONGEST_PATH or sys.platform != "linux":
        listener.bind(path)
        return
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)


def _check_stale(path: str) -> None:
    """Raise if there is something at `path` that is not to be replaced."""
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(errno.EADDRINUSE, f"{path} exists and is no socket; remove it, or choose another path")
    with std_socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except BlockingIOError:
            pass  # somebody listens, and is busy
    raise OSError(errno.EADDRINUSE, f"somebody listens on {path} already")


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _chown(path: str, user: str | int | None, group: str | int | None) -> None:
    try:
        if user is not None:
            shutil.chown(path, user=user)
        if group is not None:
            shutil.chown(path, group=group)
    except LookupError as error:
        raise ValueError(f"the owner of {path} cannot be set: {error}") from None
