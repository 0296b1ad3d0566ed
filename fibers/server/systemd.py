"""What systemd, or whoever starts us as it does, hands over and wants to be told.

* It passes listeners from fd 3 on, and says for which process they are meant (`LISTEN_PID`): a child that inherits the
  environment must not take them.
* It wants to know when the service is ready, reloads or stops (`NOTIFY_SOCKET`), and, if `WATCHDOG_USEC` is set, a sign
  of life within that time. We give it twice as often.

See sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).
"""

import errno
import os
import socket as std
import time
from typing import Final

from ..io import socket

#: The first fd that systemd passes.
FIRST_PASSED: Final = 3


def passed_listeners() -> list[tuple[str, socket.socket]]:
    """The listeners that systemd has passed to this process, with their names; none if it has not.

    To be called once: the environment variables are removed, so that no child takes them for its own. Raises ValueError
    if the variables make no sense, OSError if what was passed are no listening sockets.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
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
        if listener.type == std.SOCK_STREAM and not listener.getsockopt(std.SOL_SOCKET, std.SO_ACCEPTCONN):
            listener.detach()
            raise OSError(errno.EINVAL, f"fd {fd}, passed by LISTEN_FDS, is no listening socket")
        found.append((names[place] if len(names) == int(count) else "", listener))
    return found


def notify(state: str) -> bool:
    """Tell systemd about this service ("READY=1", "STATUS=…"); False if it does not listen, or cannot be told.

    Any thread. It may block the thread for a moment, if systemd has a lot to do.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    with std.socket(std.AF_UNIX, std.SOCK_DGRAM) as sender:
        sender.settimeout(1.0)
        try:
            sender.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)
        except OSError:
            return False
    return True


def ready() -> bool:
    """READY=1: the server serves, for the first time or again."""
    return notify("READY=1")


def reloading() -> bool:
    """RELOADING=1, with the time that systemd wants beside it. `ready` tells that it is over."""
    return notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> bool:
    """STOPPING=1."""
    return notify("STOPPING=1")


def watchdog_seconds() -> float | None:
    """How often a sign of life (`notify("WATCHDOG=1")`) is to be given; None if nobody asks this process for it."""
    limit, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not limit.isdecimal() or not int(limit) or (pid and pid != str(os.getpid())):
        return None
    return int(limit) / 2e6
