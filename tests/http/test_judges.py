"""Clients that know nothing of this project: curl, ab, wrk, and `requests`. Each where it is installed."""

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from support import tls
from support.http_serving import Site, site
from support.once import once
from support.servers import find

from fibers.http import File, Request, Server
from fibers.threads.to_thread import to_thread

BODY = bytes(range(256)) * 4000


def service(folder: Path) -> Server:
    server = Server()
    (folder / "file").write_bytes(BODY)
    server.route("/file")(lambda request: File(folder / "file"))
    server.otherwise(lambda request: "hello")

    @server.route("/hash", methods=["POST"])
    def digest(request: Request) -> dict[str, object]:
        data = request.read()
        return {"size": len(data), "hash": hashlib.sha256(data).hexdigest()}

    @server.route("/pieces")
    def pieces(request: Request) -> Iterator[bytes]:
        for at in range(0, len(BODY), 50_000):
            yield BODY[at : at + 50_000]

    return server


def url(served: Site, path: str = "/", scheme: str = "http") -> str:
    host, port = served.server.address[:2]
    return f"{scheme}://{host}:{port}{path}"


def run(*command: object) -> str:
    """Run a program while the server, in this thread's loop, serves it; what it prints."""
    words = [str(word) for word in command]
    done = to_thread(subprocess.run, words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, text
    return int(found[1])


@once
def test_ab(tmp_path: Path) -> None:
    ab = find("ab", "apache2-utils")
    (tmp_path / "body").write_bytes(BODY[:5000])
    with site(service(tmp_path)) as served:
        for options in ((), ("-k",), ("-k", "-p", tmp_path / "body", "-T", "text/plain")):
            path = "/hash" if "-p" in options else "/"
            told = run(ab, "-q", "-n", 200, "-c", 8, *options, url(served, path))
            assert number(r"Complete requests: +(\d+)", told) == 200
            assert number(r"Failed requests: +(\d+)", told) == 0
            assert "Non-2xx" not in told
            if "-k" in options:
                assert number(r"Keep-Alive requests: +(\d+)", told) == 200


@once
def test_wrk(tmp_path: Path) -> None:
    wrk = find("wrk", "wrk")
    with site(service(tmp_path)) as served:
        told = run(wrk, "-t", 1, "-c", 8, "-d", 1, url(served))
    assert number(r"(\d+) requests in", told) > 0
    assert "Socket errors" not in told
    assert "Non-2xx" not in told


@pytest.mark.parametrize("scheme", ["http", pytest.param("https", marks=once)])
def test_curl(scheme: str, tmp_path: Path) -> None:
    curl = find("curl", "curl")
    options = {}
    trust: list[object] = []
    if scheme == "https":
        certificates = tls.certificates()
        options = {"tls": (certificates.localhost, None)}
        trust = ["--cacert", certificates.ca, "--connect-to", "localhost::127.0.0.1:"]
    (tmp_path / "body").write_bytes(BODY)
    with site(service(tmp_path), **options) as served:
        base = url(served, scheme=scheme).replace("127.0.0.1", "localhost" if trust else "127.0.0.1")
        get = (curl, "-sS", "--fail", "--max-time", 30, *trust)
        run(*get, "-o", tmp_path / "whole", base + "file")
        assert (tmp_path / "whole").read_bytes() == BODY
        run(*get, "-r", "1000-1999", "-o", tmp_path / "part", base + "file")
        assert (tmp_path / "part").read_bytes() == BODY[1000:2000]
        run(*get, "-o", tmp_path / "pieces", base + "pieces")
        assert (tmp_path / "pieces").read_bytes() == BODY
        wanted = {"size": len(BODY), "hash": hashlib.sha256(BODY).hexdigest()}
        for how in (["--data-binary"], ["-H", "Transfer-Encoding: chunked", "--data-binary"]):
            told = run(*get, "-H", "Expect: 100-continue", *how, f"@{tmp_path / 'body'}", base + "hash")
            assert json.loads(told) == wanted
        told = run(*get, "-w", "%{num_connects}\n", base, base, base)  # one connection for all
        assert re.findall(r"hello(\d)", told) == ["1", "0", "0"]
        assert run(*get, "-I", base + "file").startswith("HTTP/1.1 200 OK")


def test_requests(tmp_path: Path) -> None:
    def talk(base: str) -> None:
        with requests.Session() as session:
            assert session.get(base).text == "hello"
            assert session.get(base + "file").content == BODY
            answer = session.get(base + "file", headers={"Range": "bytes=-10"})
            assert (answer.status_code, answer.content) == (206, BODY[-10:])
            with session.get(base + "pieces", stream=True) as answer:
                assert b"".join(answer.iter_content(7000)) == BODY
            told = {"size": len(BODY), "hash": hashlib.sha256(BODY).hexdigest()}
            assert session.post(base + "hash", data=BODY).json() == told
            chunks = (BODY[at : at + 30_000] for at in range(0, len(BODY), 30_000))
            assert session.post(base + "hash", data=chunks).json() == told
            assert session.options(base + "hash").headers["Allow"]
            assert session.put(base + "hash").status_code == 405

    with site(service(tmp_path)) as served:
        to_thread(talk, url(served))
        assert served.hub.census.accepted_total == 1  # one connection for all
