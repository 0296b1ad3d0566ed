"""How many connections fit.

Each end of a connection is an fd, and each process may have RLIMIT_NOFILE of them: the soft limit, often 1,024 or less,
which a process may raise up to the hard one. The child inherits what is set here. `select` knows no fd from 1,024 on,
whatever the limits are.
"""

import resource
import sys

#: Fds that either process needs beside its connections: standard streams, loop, listener, line, and some inherited ones.
BESIDES = 64
SELECT_MAX = 1024


def _limit(value: int) -> int:
    return sys.maxsize if value == resource.RLIM_INFINITY else value


def fit(wanted: int, backend: str) -> tuple[int, str]:
    """How many of `wanted` connections can be had, and why not all ("" if all). Raises the soft limit of the process.

    Raises ValueError if not even one fits.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + BESIDES
    if _limit(soft) < needed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, _limit(hard)), hard))
        except (OSError, ValueError):
            pass  # some systems have one more limit, and do not tell: then the soft one stands
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room, why = _limit(soft), f"this process may have {soft:,} open files (ulimit -n)"
    if backend == "select" and room > SELECT_MAX:
        room, why = SELECT_MAX, f"select knows no file descriptor from {SELECT_MAX:,} on"
    if room >= needed:
        return wanted, ""
    if room <= BESIDES:
        raise ValueError(f"no connection fits: {why}, and {BESIDES} are needed for the rest")
    return room - BESIDES, f"{room - BESIDES:,} connections instead of {wanted:,}: {why}"
