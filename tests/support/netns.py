"""A network of one's own, for tests of what happens when it fails: a thread in a new network namespace (Linux, root).

A namespace belongs to a thread, so no other process is needed: sockets that are made in that thread live in the new
network, which has nothing but a loopback interface. Threads that it asks for help (look-ups of names) live in the old one.
"""

import ctypes
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from fcntl import ioctl
from functools import cache
from typing import Any, Final

import pytest

_CLONE_NEWNET: Final = 0x40000000
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1


def run(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)` in a network that has only a loopback interface, which is up. Skips where that is not allowed."""
    if sys.platform != "linux":
        pytest.skip("network namespaces are a thing of Linux")
    result: list[Any] = []
    refused: list[OSError] = []
    errors: list[BaseException] = []

    def work() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET) < 0:
            number = ctypes.get_errno()
            refused.append(OSError(number, os.strerror(number)))
            return
        try:
            set_loopback(True)
            result.append(function(*args))
        except BaseException as error:  # for the caller to raise
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), f"{function} has not ended"
    if refused:
        pytest.skip(f"a network namespace needs root (CAP_SYS_ADMIN): {refused[0]}")
    if errors:
        raise errors[0]
    return result[0]


def set_loopback(up: bool) -> None:
    """Of the calling thread's network: down, every packet is lost. Never outside of `run`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        name, flags = struct.unpack("16sh", ioctl(control, _SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))
        ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh", name, flags | _IFF_UP if up else flags & ~_IFF_UP))


@cache
def has_ipv6() -> bool:
    """Can a socket be bound to ::1 here?"""
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def with_ipv6(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)` where there is IPv6: here, or in a network of its own."""
    return function(*args) if has_ipv6() else run(_with_ipv6, function, *args)


def _with_ipv6(function: Callable[..., Any], *args: Any) -> Any:
    if not has_ipv6.__wrapped__():
        pytest.skip("this kernel has no IPv6")
    return function(*args)
