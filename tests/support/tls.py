"""Certificates and peers for the tests of TLS.

The certificates are made by the `openssl` command when they are first asked for, once for each test process: one CA, two
server certificates (localhost and other.test) and one for a client.
"""

import atexit
import shutil
import ssl as std
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import fibers
from fibers.io import socket, ssl

OPENSSL = shutil.which("openssl")

needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="the openssl command makes the certificates: .ci/debian.sh")

_CONFIG = """
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[localhost]
subjectAltName = DNS:localhost, IP:127.0.0.1
authorityKeyIdentifier = keyid
[other]
subjectAltName = DNS:other.test
authorityKeyIdentifier = keyid
[client]
subjectAltName = email:client@test
authorityKeyIdentifier = keyid
"""


class Certificates(NamedTuple):
    """Paths of PEM files; those of servers and the client hold the key, too."""

    ca: str
    localhost: str
    other: str
    client: str


_making = threading.Lock()
_made: list[Certificates] = []


def certificates() -> Certificates:
    """Made once, whoever asks first."""
    with _making:
        if not _made:
            _made.append(_make())
        return _made[0]


def _make() -> Certificates:
    folder = Path(tempfile.mkdtemp(prefix="fibers-tls-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "config").write_text(_CONFIG)

    def openssl(*args: str) -> None:
        subprocess.run([OPENSSL or "openssl", *args], cwd=folder, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-config", "config")
    openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-extensions", "ca")
    for name in ("localhost", "other", "client"):
        openssl("req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-extfile", "config", "-extensions", name, "-out", f"{name}.crt", "-days", "30"),
        )
        (folder / f"{name}.pem").write_text((folder / f"{name}.crt").read_text() + (folder / f"{name}.key").read_text())
    return Certificates(*(str(folder / f"{name}.pem") for name in Certificates._fields))


TLS12 = std.TLSVersion.TLSv1_2
TLS13 = std.TLSVersion.TLSv1_3


def server_context(version: Any = None, module: Any = ssl) -> std.SSLContext:
    """A server's context with the certificate of localhost. `module`: ours, or the standard one for a foreign peer."""
    context: std.SSLContext = module.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates().localhost)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def client_context(version: Any = None, module: Any = ssl) -> std.SSLContext:
    """A client's context that trusts the CA."""
    context: std.SSLContext = module.create_default_context(cafile=certificates().ca)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def tls_pair(
    version: Any = None, server: std.SSLContext | None = None, client: std.SSLContext | None = None
) -> tuple[Any, Any]:
    """Two ends of a TLS connection over TCP, client first, both ours; the handshake is done by two fibers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    serving = fibers.spawn((server or server_context(version)).wrap_socket, far, server_side=True)
    try:
        mine = (client or client_context(version)).wrap_socket(near, server_hostname="localhost")
    except BaseException:
        far.close()
        serving.join()
        raise
    return mine, serving.result()


@contextmanager
def in_thread(function: Callable[..., Any], *args: Any) -> Iterator[None]:
    """Run a peer that blocks its thread, as programs without fibers do; its error is raised at the end."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function(*args)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(30)
    assert not thread.is_alive(), f"{function} has not ended"
    if errors:
        raise errors[0]
