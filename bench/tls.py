"""Contexts for the TLS workloads: one self-signed certificate, made by the `openssl` command, the same for every runtime.

The key is an elliptic one (P-256), as most servers have today; both ends speak TLS 1.3 with the cipher that OpenSSL
prefers. A client checks the certificate. `module` is the runtime's own `ssl` module, where it has one.
"""

from __future__ import annotations

import functools
import ssl
import subprocess
import tempfile
from pathlib import Path
from typing import Any

MESSAGE = b"x" * 16_384
"""One record of TLS, the largest."""
PAIRS = 10
HANDSHAKES = 20
"""Connections made before each stopwatch starts; the handshakes on them are then made one after the other."""
HOST = "localhost"


@functools.cache
def certificate() -> str:
    """A file with key and certificate; RuntimeError where openssl is missing."""
    folder = tempfile.TemporaryDirectory(prefix="fibers-bench-")
    path = Path(folder.name) / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    subprocess.run(
        [*command, *subject, "-keyout", path, "-out", path.with_suffix(".crt")], check=True, capture_output=True
    )
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    _folders.append(folder)
    return str(path)


_folders: list[tempfile.TemporaryDirectory[str]] = []


def server_context(module: Any = ssl) -> Any:
    """A server's context."""
    context = module.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate())
    return context


def client_context(module: Any = ssl) -> Any:
    """A client's context, which trusts the certificate."""
    context = module.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate())
    return context
