"""A drop-in for the standard `ssl` module whose sockets suspend only the fiber that uses them.

    from fibers.io import ssl

Everything the standard module exports is here. `SSLContext(…)` and the functions that make contexts return plain
`ssl.SSLContext` objects; all that is special about them is the attribute `sslsocket_class`, which a context may have for
itself. (A subclass would break those who subclass and patch SSLContext themselves: urllib3, truststore, pip.)

Differences. `wrap_socket` is a function that takes the context as an argument, any context. TLS sockets have `send_eof()`,
which closes one half of the connection. Handshakes, and whatever else works in two directions, have one deadline.
"""

# Names that the star brings in are defined again below: that is what a drop-in does.
# mypy: disable-error-code="no-redef, assignment, misc"

import ssl as std
from ssl import *
from ssl import SSLContext as _SSLContext
from ssl import SSLSocket as _SSLSocket
from typing import Any

from ..channels.readiness import holders
from . import tls_handshake, tls_sockets
from . import tls_operations as operations
from .socket import _GLOBAL_DEFAULT_TIMEOUT, create_connection
from .socket import socket as _socket


class SSLSocket(_SSLSocket, _socket):
    """As `ssl.SSLSocket`; the operations suspend the fiber. Made by `SSLContext.wrap_socket` and `wrap_socket`."""

    _create = classmethod(tls_sockets.create)
    do_handshake = tls_handshake.do_handshake
    read = operations.read
    write = operations.write
    recv = operations.recv
    recv_into = operations.recv_into
    send = operations.send
    sendall = operations.sendall
    pending = operations.pending
    unwrap = tls_handshake.unwrap
    send_eof = tls_handshake.send_eof
    connect = tls_sockets.connect
    connect_ex = tls_sockets.connect_ex
    accept = tls_sockets.accept
    shutdown = tls_sockets.shutdown
    _real_close = tls_sockets.real_close


class _ContextClass:
    """Stands for the class SSLContext: makes contexts, and can be asked for and derived from as the class can."""

    __slots__ = ()

    __name__ = __qualname__ = "SSLContext"

    def __call__(self, *args: Any, **kwargs: Any) -> _SSLContext:
        return _ours(_SSLContext(*args, **kwargs))

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, _SSLContext)

    def __subclasscheck__(self, cls: type) -> bool:
        return issubclass(cls, _SSLContext)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (_SSLContext,)

    def __getattr__(self, name: str) -> Any:
        return getattr(_SSLContext, name)

    def __repr__(self) -> str:
        return "<fibers.io.ssl.SSLContext: makes plain ssl.SSLContext objects>"


SSLContext = _ContextClass()

holders.append(operations.holds_data)


def _ours(context: _SSLContext) -> _SSLContext:
    context.sslsocket_class = SSLSocket
    return context


def create_default_context(*args: Any, **kwargs: Any) -> _SSLContext:
    """As `ssl.create_default_context`."""
    return _ours(std.create_default_context(*args, **kwargs))


def _create_unverified_context(*args: Any, **kwargs: Any) -> _SSLContext:
    return _ours(std._create_unverified_context(*args, **kwargs))


_create_stdlib_context = _create_unverified_context
_create_default_https_context = create_default_context


def wrap_socket(
    sock: Any,
    server_side: bool = False,
    do_handshake_on_connect: bool = True,
    suppress_ragged_eofs: bool = True,
    server_hostname: str | None = None,
    session: Any = None,
    *,
    context: _SSLContext,
) -> SSLSocket:
    """`context.wrap_socket(…)`, with a socket of ours as its result, whatever class the context is of.

    The context, and a context that it keeps inside and asks (as those of truststore do), make sockets of ours from then
    on. Raises TypeError if the context makes sockets of another kind nevertheless.
    """
    if not isinstance(context, _SSLContext):
        raise TypeError(f"context must be an ssl.SSLContext, not {context!r}")
    for each in (context, *vars(context).values()):
        if isinstance(each, _SSLContext) and not issubclass(each.sslsocket_class or _SSLSocket, SSLSocket):
            each.sslsocket_class = SSLSocket
    wrapped = context.wrap_socket(
        sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, server_hostname, session
    )
    if not isinstance(wrapped, SSLSocket):
        wrapped.close()
        raise TypeError(f"{context!r} makes sockets of {type(wrapped)}, whatever its sslsocket_class says")
    return wrapped


def get_server_certificate(
    addr: tuple[str, int],
    ssl_version: int = PROTOCOL_TLS_CLIENT,
    ca_certs: str | None = None,
    timeout: Any = _GLOBAL_DEFAULT_TIMEOUT,
) -> str:
    """As `ssl.get_server_certificate`."""
    context = _create_unverified_context(
        ssl_version, cert_reqs=CERT_NONE if ca_certs is None else CERT_REQUIRED, cafile=ca_certs
    )
    with (
        create_connection(addr, timeout=timeout) as sock,
        context.wrap_socket(sock, server_hostname=addr[0]) as connection,
    ):
        certificate = connection.getpeercert(True)
    assert certificate is not None
    return DER_cert_to_PEM_cert(certificate)
