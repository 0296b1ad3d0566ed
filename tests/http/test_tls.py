"""HTTPS: handshakes, certificates by name and renewed, and the same server behind it."""

import os
import shutil
import ssl as std
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.http_serving import Site, answer, request, site
from support.tls import certificates, needs_openssl

import fibers
from fibers.http import Certificates, File, Request, Response, Server
from fibers.http.census import ACCEPTED, KEEP_ALIVE, TLS, WRITING
from fibers.http.proxy import SIGNATURE
from fibers.io import Stream, socket, ssl
from fibers.threads.to_thread import to_thread

pytestmark = needs_openssl

LARGE = bytes(range(256)) * 40_000


def service(path: Path | None = None) -> Server:
    server = Server()
    server.route("/", methods=["GET", "POST"])(
        lambda request: request.scheme + " " + request.client + " " + request.text()
    )
    server.route("/large")(lambda request: LARGE)
    if path is not None:
        server.route("/file")(lambda request: File(path))

    @server.route("/pieces")
    def pieces(request: Request) -> Response:
        return Response(LARGE[at : at + 70_000] for at in range(0, len(LARGE), 70_000))

    return server


@contextmanager
def secure(served: Site, name: str = "localhost", before: bytes = b"", alpn: tuple[str, ...] = ()) -> Iterator[Stream]:
    context = ssl.create_default_context(cafile=certificates().ca)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    sock = socket.create_connection(served.server.address[:2], timeout=10)
    sock.sendall(before)
    with context.wrap_socket(sock, server_hostname=name) as wrapped:
        yield Stream(wrapped)


def test_requests_over_tls() -> None:
    with site(service(), tls=(certificates().localhost, None)) as served:
        with secure(served, alpn=("h2", "http/1.1")) as client:
            assert client.transport.selected_alpn_protocol() == "http/1.1"  # type: ignore[attr-defined]
            client.write_all(request() + request("/", "POST", b"body"))
            assert answer(client).body == b"https 127.0.0.1 "
            assert answer(client).body == b"https 127.0.0.1 body"
            client.write_all(request()[:10])
            fibers.sleep(0)
            client.write_all(request()[10:])
            assert answer(client).status == 200
            client.write_all(request(Connection="close"))
            assert answer(client).status == 200
            assert client.read_all() == b""  # and not an error: the end is announced
        while served.hub.census.open():
            fibers.sleep(0.001)


def test_an_idle_connection_over_tls_holds_no_fiber() -> None:
    with site(service(), tls=(certificates().localhost, None)) as served:
        fibers_before = len(fibers.all_fibers())
        with secure(served) as client, served.connect() as silent:
            client.write_all(request())
            assert answer(client).status == 200
            while served.hub.census.count(KEEP_ALIVE) != 1 or served.hub.census.count(ACCEPTED) != 1:
                fibers.sleep(0.001)
            assert len(fibers.all_fibers()) == fibers_before
            silent.close()


def test_large_responses_and_files_over_tls(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    with site(service(path), tls=(certificates().localhost, None), max_handlers=1) as served, secure(served) as client:
        for target in ("/large", "/pieces", "/file"):
            client.write_all(request(target))
            assert answer(client).body == LARGE
        client.write_all(request("/large") + request("/file"))
        while served.hub.census.count(WRITING) != 1:
            fibers.sleep(0)
        assert served.hub.running == 0
        assert answer(client).body == LARGE
        assert answer(client).body == LARGE


def test_an_error_can_be_read_to_its_end() -> None:
    with site(service(), tls=(certificates().localhost, None)) as served, secure(served) as client:
        client.write_all(b"NONSENSE\r\n\r\n")
        assert answer(client).status == 400
        assert client.read_all() == b""


def test_curl() -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed: .ci/debian.sh")
    with site(service(), tls=(certificates().localhost, None)) as served:
        port = served.server.address[1]
        command = [curl, "-sS", "--cacert", certificates().ca, f"https://localhost:{port}/large", "--ipv4"]
        done: Any = to_thread(subprocess.run, command, capture_output=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == LARGE


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"\x16\x03\x01", bytes(100)])
def test_what_is_no_tls_is_closed(sent: bytes) -> None:
    with site(service(), tls=(certificates().localhost, None)) as served:
        with served.connect() as client:
            client.write_all(sent)
            client.write_eof()
            try:
                assert b"HTTP" not in client.read_all()
            except ConnectionError:
                pass
        while served.hub.census.open():
            fibers.sleep(0.001)


def test_a_handshake_has_its_time() -> None:
    with site(service(), tls=(certificates().localhost, None), handshake_timeout=0.05) as served:
        with served.connect() as client:
            client.write_all(b"\x16\x03\x01\x02")
            while served.hub.census.count(TLS) != 1:
                fibers.sleep(0.001)
            assert client.read_all() == b""
        assert served.hub.census.open() == 0


def test_a_stop_ends_a_handshake() -> None:
    with site(service(), tls=(certificates().localhost, None), graceful_timeout=0.02) as served:
        client = served.connect()
        client.write_all(b"\x16\x03\x01\x02")
        while served.hub.census.count(TLS) != 1:
            fibers.sleep(0.001)
    assert client.read_all() == b""
    client.close()


def name_of(client: Stream) -> Any:
    return client.transport.getpeercert()["subjectAltName"]  # type: ignore[attr-defined]


def test_certificates_by_name() -> None:
    made = certificates()
    tls = Certificates(made.localhost, names={"other.test": (made.other, None), "*.deep.test": (made.other, None)})
    with site(service(), tls=tls) as served:
        with secure(served) as client:
            assert ("DNS", "localhost") in name_of(client)
        with secure(served, "other.test") as client:
            assert name_of(client) == (("DNS", "other.test"),)
        with pytest.raises(ssl.SSLCertVerificationError), secure(served, "none.test"):
            pass
        with pytest.raises(ssl.SSLCertVerificationError, match=r"other|mismatch"), secure(served, "a.deep.test"):
            pass


def test_renewed_certificates_are_for_the_next_connections(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made, path = certificates(), tmp_path / "server.pem"
    shutil.copy(made.localhost, path)
    tls = Certificates(path, check=0.0)
    with site(service(), tls=tls) as served, secure(served) as before:
        path.write_text("half a certificate")
        with secure(served) as client:  # what cannot be used changes nothing
            assert ("DNS", "localhost") in name_of(client)
        assert "cannot be used" in caplog.text
        shutil.copy(made.other, tmp_path / "new")
        os.replace(tmp_path / "new", path)
        with secure(served, "other.test") as client:
            client.write_all(request())
            assert answer(client).status == 200
        before.write_all(request())
        assert answer(before).status == 200  # who is connected stays so
        shutil.copy(made.localhost, path)
        served.server.renew()  # as SIGHUP does
        with secure(served) as client:
            assert ("DNS", "localhost") in name_of(client)


def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pem"):
        Certificates(tmp_path / "none.pem")
    (tmp_path / "bad.pem").write_text("nonsense")
    with pytest.raises(std.SSLError, match=r"bad\.pem"):
        Certificates(tmp_path / "bad.pem")


@pytest.mark.parametrize("header", [b"PROXY TCP4 1.2.3.4 5.6.7.8 99 80\r\n", SIGNATURE + b"\x20\0\0\0"])
def test_a_balancer_that_passes_tls_on(header: bytes) -> None:
    options = {"tls": (certificates().localhost, None), "proxy_protocol_from": ["127.0.0.1"]}
    with site(service(), **options) as served, secure(served, before=header) as client:
        client.write_all(request())
        wanted = b"https 1.2.3.4 " if header.startswith(b"PROXY") else b"https 127.0.0.1 "
        assert answer(client).body == wanted
