"""TLS with programs that know nothing of this project: openssl s_client and s_server, curl, and threads with the stdlib."""

import shutil
import socket as std_socket
import ssl as theirs
import subprocess
from typing import Any

import pytest
from support.process import ROOT
from support.tls import (
    OPENSSL,
    TLS12,
    TLS13,
    certificates,
    client_context,
    in_thread,
    needs_openssl,
    server_context,
)

import fibers
from fibers.io import Stream, socket, ssl
from fibers.threads.to_thread import to_thread

pytestmark = needs_openssl

needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed: .ci/debian.sh")


class Program:
    """A child process whose standard streams are pipes; it is killed at the end of the block."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        self.stdin.close()
        self.stdout.close()

    def await_line(self, part: bytes) -> bytes:
        """The next line of its output with `part` in it; others run meanwhile."""
        while part not in (line := to_thread(self.stdout.readline)):
            assert line, "the program has ended early"
        return line

    def say(self, data: bytes) -> None:
        self.stdin.write(data)
        self.stdin.flush()


def s_client(port: int, *more: str) -> Program:
    where = ("-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-CAfile", certificates().ca)
    return Program(OPENSSL or "openssl", "s_client", *where, "-verify_return_error", "-quiet", *more)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_talks_to_our_server(version: str) -> None:
    with server_context().wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:
        with s_client(listener.getsockname()[1], version) as program:
            with Stream(listener.accept()[0]) as stream:
                program.say(b"hello from outside\n")
                assert stream.read_until(b"\n", timeout=20) == b"hello from outside\n"
                stream.write_all(b"x" * 300_000 + b"\n")
                stream.write_eof()
                answer = to_thread(program.stdout.read)
                assert answer.endswith(b"x" * 300_000 + b"\n")
                assert stream.read_all(timeout=20) == b""


@pytest.mark.parametrize("command", [b"R", b"K", b"k"], ids=["renegotiates", "new keys for both", "new keys"])
def test_s_client_changes_its_keys(command: bytes) -> None:
    """A client's renegotiation is refused by OpenSSL 3, new keys of TLS 1.3 are taken and, if asked for, answered."""
    version = TLS12 if command == b"R" else TLS13
    context = server_context(version)
    if version is TLS12:
        context.options &= ~ssl.OP_NO_RENEGOTIATION
    with context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:
        where = ("-connect", f"127.0.0.1:{listener.getsockname()[1]}", "-CAfile", certificates().ca)
        with Program(OPENSSL or "openssl", "s_client", *where) as program:
            with Stream(listener.accept()[0]) as stream:
                program.say(b"before\n")
                assert stream.read_until(b"\n", timeout=20) == b"before\n"
                program.say(command + b"\n")
                program.await_line(b"RENEGOTIATING" if version is TLS12 else b"KEYUPDATE")
                if version is TLS12:
                    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):  # what the client makes of it
                        stream.read_exactly(1, timeout=20)
                    return
                program.say(b"after\n")
                assert stream.read_until(b"\n", timeout=20) == b"after\n"
                stream.write_all(b"answer\n")


def s_server(*more: str) -> tuple[Program, int]:
    program = Program(
        *(OPENSSL or "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", certificates().localhost, *more)
    )
    return program, int(program.await_line(b"ACCEPT").rpartition(b":")[2])


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_our_client_talks_to_s_server(version: str) -> None:
    program, port = s_server("-rev", version)
    with program:
        context = client_context()
        session = None
        for reused in (False, True):
            plain = socket.create_connection(("127.0.0.1", port), timeout=20)
            tls: Any = context.wrap_socket(plain, server_hostname="localhost", session=session)
            with Stream(tls) as stream:
                stream.write_all(b"abc" * 1000 + b"\n")
                assert stream.read_until(b"\n") == b"cba" * 1000 + b"\n"
                assert tls.session_reused is reused
                session = tls.session


def test_a_server_that_renegotiates_is_followed() -> None:
    program, port = s_server("-tls1_2")
    with program:
        plain = socket.create_connection(("127.0.0.1", port), timeout=20)
        with Stream(client_context().wrap_socket(plain, server_hostname="localhost")) as stream:
            stream.write_all(b"hello\n")
            program.await_line(b"hello")
            reading = fibers.spawn(stream.read_until, b"\n")
            fibers.yield_now()
            program.say(b"r\n")  # asks for a new handshake
            program.await_line(b"SSL_do_handshake -> 1")
            writing = fibers.spawn(stream.write_all, b"in the middle of it\n")
            program.await_line(b"in the middle of it")
            program.say(b"said after it\n")
            writing.result(20)
            assert reading.result(20) == b"said after it\n"


def test_early_and_late_client_certificates_for_s_server() -> None:
    program, port = s_server("-rev", "-Verify", "1", "-CAfile", certificates().ca)
    with program:
        context = client_context()
        context.load_cert_chain(certificates().client)
        plain = socket.create_connection(("127.0.0.1", port), timeout=20)
        with Stream(context.wrap_socket(plain, server_hostname="localhost")) as stream:
            stream.write_all(b"abc\n")
            assert stream.read_until(b"\n") == b"cba\n"


@needs_curl
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_fetches_from_our_server(version: str) -> None:
    body = bytes(range(256)) * 4000

    def serve(connection: Any) -> None:
        with Stream(connection) as stream:
            for _ in range(3):
                head = stream.read_until(b"\r\n\r\n", timeout=20)
                assert head.startswith(b"GET /")
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with server_context().wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:
        port = listener.getsockname()[1]
        urls = [f"https://localhost:{port}/{each}" for each in range(3)]
        security = ("--cacert", certificates().ca, "--resolve", f"localhost:{port}:127.0.0.1", "--noproxy", "*")
        command = ["curl", "-sS", "--max-time", "30", f"--tlsv{version}", "--tls-max", version, *security, *urls]
        fetching = fibers.spawn(
            to_thread, lambda: subprocess.run(command, capture_output=True, timeout=60, check=False)
        )
        serve(listener.accept()[0])
        done = fetching.result(60)
    assert (done.stderr, done.returncode) == (b"", 0)
    assert done.stdout == body * 3


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
@pytest.mark.parametrize("ours", ["server", "client"])
def test_a_thread_with_the_standard_module_is_the_peer(version: Any, ours: str) -> None:
    data = bytes(range(256)) * 8000
    with std_socket.create_server(("127.0.0.1", 0)) as listener:
        near: Any = socket.create_connection(listener.getsockname())
        far = listener.accept()[0]

    def peer() -> None:
        if ours == "client":
            tls = server_context(version, theirs).wrap_socket(far, server_side=True)
        else:
            tls = client_context(version, theirs).wrap_socket(far, server_hostname="localhost")
        with tls:
            got = bytearray()
            while len(got) < len(data):
                got += tls.recv(50_000)
            assert got == data
            tls.sendall(data)
            assert tls.unwrap() is not None
            assert std_socket.socket.recv(tls, 100) == b"plain again"

    with in_thread(peer):
        tls: Any
        if ours == "server":
            tls = server_context(version).wrap_socket(near, server_side=True)
        else:
            tls = client_context(version).wrap_socket(near, server_hostname="localhost")
        with tls:
            tls.sendall(data)
            got = bytearray()
            while len(got) < len(data):
                got += tls.recv(50_000)
            assert got == data
            tls.unwrap()
            tls.sendall(b"plain again")
