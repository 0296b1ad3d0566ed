"""The methods that the standard `socket.socket`, `ssl.SSLSocket` and `subprocess.Popen` are given in place.

They are those of the drop-in modules in `fibers.io`, which are functions over any such object. So instances and subclasses
that were made before are served as well, `isinstance` means what it meant, and `SSLContext` is not touched at all.
"""

import _socket
import os
import socket as std
from typing import Any, Final

from ..io import operations
from ..io import socket as our_socket
from ..io import ssl as our_ssl
from ..io import subprocess as our_subprocess
from ..io.state import adopt, states

#: What a class body holds besides.
_NOT_METHODS: Final = {
    "__doc__",
    "__module__",
    "__slots__",
    "__dict__",
    "__weakref__",
    "__annotations__",
    "__orig_bases__",
    "__parameters__",
}

_Raw: Final = _socket.socket


def accept(self: Any) -> tuple[std.socket, Any]:
    """As `socket.accept`."""
    fd, address = operations.accept(self)
    connection = std.socket(_Raw.family.__get__(self), _Raw.type.__get__(self), _Raw.proto.__get__(self), fileno=fd)
    adopt(connection, fresh=True).timeout = std.getdefaulttimeout()
    return connection, address


def detach(self: Any) -> int:
    """As `socket.detach`. The fd is given away as the standard class does: blocking, if the socket has no timeout."""
    state = states.get(id(self))  # without one, the fd is as it was made
    fd: int = our_socket.socket.detach(self)
    if fd >= 0 and state is not None and state.timeout is None:
        try:
            os.set_blocking(fd, True)
        except OSError:
            pass  # closed behind our back, which is no affair of this call
    return fd


def _of(kind: type, *without: str) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if name not in _NOT_METHODS and name not in without}


#: `dup` of the standard class does, over these.
SOCKET: Final[dict[str, Any]] = {**_of(our_socket.socket, "dup"), "accept": accept, "detach": detach}
SSL_SOCKET: Final = _of(our_ssl.SSLSocket)
POPEN: Final = _of(our_subprocess.Popen)
