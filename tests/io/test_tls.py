"""TLS sockets of ours with each other: what the standard ones can do, and what they cannot."""

import fcntl
import os
import ssl as std
import termios
from array import array
from pathlib import Path
from typing import Any

import pytest
from support.backends import lifetime_only
from support.process import ROOT, run_python
from support.tls import TLS12, TLS13, certificates, client_context, needs_openssl, server_context, tls_pair

import fibers
from fibers.core.scheduler import get_scheduler
from fibers.io import Stream, socket, ssl
from fibers.io.tls_operations import read_now, unsent, write_now

pytestmark = needs_openssl

versions = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
wrap_socket: Any = ssl.wrap_socket  # the type checker would have the one of Python 3.11


def receive(sock: Any, size: int) -> bytes:
    """Exactly so many bytes, unless the data ends."""
    got = bytearray()
    while len(got) < size and (data := sock.recv(size - len(got))):
        got += data
    return bytes(got)


# -- the module -----------------------------------------------------------------------------------------------------------


def test_every_public_name_of_the_standard_module_is_here() -> None:
    missing = [name for name in vars(std) if not name.startswith("_") and not hasattr(ssl, name)]
    assert missing in ([], ["wrap_socket"], ["match_hostname"])
    assert ssl.SSLError is std.SSLError
    assert ssl.SSLWantReadError is std.SSLWantReadError


def test_contexts_are_plain_and_make_our_sockets() -> None:
    for context in (
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        ssl.create_default_context(),
        ssl._create_unverified_context(),
        ssl._create_default_https_context(),
    ):
        assert type(context) is std.SSLContext
        assert context.sslsocket_class is ssl.SSLSocket
        assert isinstance(context, ssl.SSLContext)
    assert std.SSLContext.sslsocket_class is std.SSLSocket
    assert std.create_default_context().sslsocket_class is std.SSLSocket

    class Derived(ssl.SSLContext):
        pass

    assert Derived.__mro__[1] is std.SSLContext
    assert issubclass(Derived, ssl.SSLContext)
    assert ssl.SSLContext.wrap_bio is std.SSLContext.wrap_bio
    with pytest.warns(DeprecationWarning, match="(?i)protocol"):
        ssl.SSLContext()


def test_objects_over_memory_work_as_ever() -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    below = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    assert type(below) is std.SSLObject
    with pytest.raises(ssl.SSLWantReadError):
        below.do_handshake()
    assert outgoing.pending


class Foreign(std.SSLContext):
    """As urllib3's and pip's: derived, with a method of its own that calls the inherited one."""

    calls = 0

    def wrap_socket(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return super().wrap_socket(*args, **kwargs)


class Enclosing(std.SSLContext):
    """As truststore's: has another context inside, which does the work."""

    def __init__(self, protocol: Any) -> None:
        self._inner = std.create_default_context(cafile=certificates().ca)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> Any:
        return self._inner.wrap_socket(*args, **kwargs)


class Stubborn(std.SSLContext):
    """Makes sockets of the standard class, whatever it is told."""

    def wrap_socket(self, *args: Any, **kwargs: Any) -> Any:
        other = std.create_default_context(cafile=certificates().ca)
        return other.wrap_socket(args[0], do_handshake_on_connect=False, server_hostname="localhost")


def echo_once(sock: socket.socket, context: Any) -> None:
    with context.wrap_socket(sock, server_side=True) as tls:
        tls.sendall(tls.recv(100))


@pytest.mark.parametrize("kind", [Foreign, Enclosing])
def test_foreign_contexts_make_our_sockets_when_asked_through_us(kind: Any) -> None:
    near, far = tcp()
    serving = fibers.spawn(echo_once, far, server_context())
    context = kind(ssl.PROTOCOL_TLS_CLIENT)
    if kind is Foreign:
        context.load_verify_locations(certificates().ca)
    with wrap_socket(near, context=context, server_hostname="localhost") as tls:
        assert type(tls) is ssl.SSLSocket
        tls.sendall(b"hello")
        assert tls.recv(100) == b"hello"
    serving.result(10)
    assert getattr(context, "calls", 1) == 1
    assert kind.sslsocket_class is std.SSLSocket


def test_a_context_that_cannot_make_our_sockets_is_refused() -> None:
    near, far = tcp()
    with near, far:
        with pytest.raises(TypeError, match="Stubborn"):
            wrap_socket(near, context=Stubborn(ssl.PROTOCOL_TLS_CLIENT))
        with pytest.raises(TypeError, match="context must be"):
            wrap_socket(far, context="a string")


def tcp() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]


# -- talking --------------------------------------------------------------------------------------------------------------


@versions
def test_data_of_every_size_arrives(version: Any) -> None:
    a, b = tls_pair(version)
    with a, b:
        assert a.version() == b.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
        for size in (1, 2, 16_383, 16_384, 16_385, 65_536, 131_072, 131_073, 1_000_000):
            data = os.urandom(size)
            sending = fibers.spawn(a.sendall, data)
            assert receive(b, size) == data
            sending.result(10)
            answering = fibers.spawn(b.send, data)
            assert receive(a, size) == data
            assert answering.result(10) == size


@versions
def test_small_reads_of_a_record_do_not_wait(version: Any) -> None:
    a, b = tls_pair(version)
    with a, b:
        a.sendall(b"0123456789" * 100)
        got = b"".join(b.recv(7) for _ in range(142))
        assert b.pending() == 1000 - len(got)
        got += b.recv(100)
        assert got == b"0123456789" * 100
        assert b.pending() == 0


def test_records_received_together_are_pending_and_none_waits_for_the_network() -> None:
    a, b = tls_pair()
    with a, b:
        for number in range(50):
            a.sendall(b"%3d" % number)
        b.settimeout(5)
        there = array("i", [0])
        while there[0] < 50 * 25:  # all of them have come to the kernel: five bytes of header, three, one, a tag of 16
            fcntl.ioctl(b.fileno(), termios.FIONREAD, there)
            fibers.yield_now()
        assert b.recv(100) == b"  0"
        for number in range(1, 50):
            assert b.pending() == 3
            assert b.pending() == 3  # asking changes nothing
            assert (b.recv(100) if number % 2 else b.read(100)) == b"%3d" % number
        assert b.pending() == 0


def test_non_blocking_reading_takes_no_more_than_a_record_so_that_select_tells_the_truth() -> None:
    a, b = tls_pair()
    with a, b:
        for number in range(5):
            a.sendall(b"%3d" % number)
        b.setblocking(False)
        for number in range(5):
            fibers.lowlevel.wait_readable(b.fileno(), 5)
            while True:
                try:
                    assert b.recv(100) == b"%3d" % number
                    break
                except ssl.SSLWantReadError:
                    assert a.version() == "TLSv1.3"  # its session tickets come first
                    fibers.lowlevel.wait_readable(b.fileno(), 5)
        with pytest.raises(ssl.SSLWantReadError):
            b.recv(100)


@versions
def test_one_half_is_closed_the_other_goes_on(version: Any) -> None:
    a, b = tls_pair(version)
    with a, b:
        b.sendall(b"sent before")  # is under way while a closes its half
        b.sendall(b", in two records")
        a.sendall(b"last words")
        a.send_eof()
        with pytest.raises(ssl.SSLError):
            a.sendall(b"more")
        assert receive(b, 10) == b"last words"
        assert b.recv(10) == b""
        b.sendall(bytes(100_000))
        assert receive(a, 27) == b"sent before, in two records"
        assert receive(a, 100_000) == bytes(100_000)
        b.send_eof()
        assert a.recv(10) == b.recv(10) == b""


def test_half_closing_keeps_what_openssl_has_decrypted_and_what_it_has_not() -> None:
    a, b = tls_pair()
    with a, b:
        for number in range(20):
            b.sendall(b"record %2d" % number)
        assert a.recv(3) == b"rec"  # the rest of this record is in OpenSSL, the others before it
        a.send_eof()
        a.send_eof()
        expected = b"".join(b"record %2d" % number for number in range(20))[3:]
        assert receive(a, len(expected)) == expected


def test_a_stream_over_tls() -> None:
    a, b = tls_pair()
    with Stream(a) as near, Stream(b) as far:
        near.write_all(b"one\ntwo\r\nrest")
        near.write_eof()
        assert list(far) == [b"one", b"two", b"rest"]
        far.write_all(b"answer")
        far.write_eof()
        assert near.read_all() == b"answer"


@versions
def test_after_unwrap_both_talk_plain_text(version: Any) -> None:
    a, b = tls_pair(version)
    with a, b:
        a.sendall(b"secret")
        assert b.recv(100) == b"secret"
        ending = fibers.spawn(b.unwrap)
        assert a.unwrap() is a
        assert ending.result(10) is b
        a.sendall(b"plain")
        assert b.recv(100) == b"plain"
        b.send(b"text")
        buffer = bytearray(10)
        assert a.recv_into(buffer) == 4
        assert (a.version(), a.pending(), b.cipher()) == (None, 0, None)


def test_plain_text_right_behind_the_end_of_tls_is_not_lost() -> None:
    a, b = tls_pair()
    with a, b:
        b.sendall(b"x")
        b.send_eof()
        socket.socket.sendall(b, b"plain text at once")
        assert a.recv(10) == b"x"
        a.unwrap()
        assert a.recv(5) == b"plain"
        assert a.recv(100, socket.MSG_PEEK) == b" text at once"
        assert a.recv_into(bytearray(100)) == 13
        assert b.unwrap() is b
        b.sendall(b"more")
        assert a.recv(100) == b"more"


def test_files_over_tls(tmp_path: Path) -> None:
    a, b = tls_pair()
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 1000)
    with a, b, path.open("rb") as file:
        sending = fibers.spawn(a.sendfile, file)
        assert receive(b, 256_000) == path.read_bytes()
        assert sending.result(10) == 256_000
        with b.makefile("rwb") as talk:
            a.sendall(b"a line\nanother\n")
            assert talk.readline() == b"a line\n"
            assert talk.readline() == b"another\n"
            talk.write(b"answer\n")
            talk.flush()
            assert a.recv(100) == b"answer\n"


# -- handshakes -------------------------------------------------------------------------------------------------------------


@versions
def test_a_session_is_reused(version: Any) -> None:
    server, client = server_context(version), client_context(version)
    session = None
    for reused in (False, True):
        near, far = tcp()
        serving = fibers.spawn(echo_once, far, server)
        with client.wrap_socket(near, server_hostname="localhost", session=session) as tls:
            tls.sendall(b"hello")
            assert tls.recv(100) == b"hello"
            assert tls.session_reused is reused
            session = tls.session
            assert session is not None
        serving.result(10)


def test_the_name_chooses_the_certificate_and_the_callback_may_wait() -> None:
    context, other = server_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.load_cert_chain(certificates().other)
    seen: list[str | None] = []

    def choose(sock: Any, name: str | None, context: std.SSLContext) -> int | None:
        fibers.sleep(0.001)  # as if it asked a database
        seen.append(name)
        if name == "other.test":
            sock.context = other
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME if name == "unknown.test" else None

    context.sni_callback = choose
    client = client_context()
    for name in ("localhost", "other.test"):
        near, far = tcp()
        serving = fibers.spawn(echo_once, far, context)
        with client.wrap_socket(near, server_hostname=name) as tls:
            certificate = tls.getpeercert()
            assert certificate is not None
            assert ("DNS", name) in certificate["subjectAltName"]
            tls.sendall(b"x")
            tls.recv(1)
        serving.result(10)
    near, far = tcp()
    serving = fibers.spawn(echo_once, far, context)
    with near, pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        client.wrap_socket(near, server_hostname="unknown.test")
    with pytest.raises(ssl.SSLError):
        serving.result(10)
    far.close()
    assert seen == ["localhost", "other.test", "unknown.test"]


def test_application_protocols_are_agreed_on() -> None:
    server, client = server_context(), client_context()
    server.set_alpn_protocols(["h2", "http/1.1"])
    client.set_alpn_protocols(["http/1.1", "h3"])
    a, b = tls_pair(None, server, client)
    with a, b:
        assert a.selected_alpn_protocol() == b.selected_alpn_protocol() == "http/1.1"


@versions
def test_a_client_shows_its_certificate(version: Any) -> None:
    server, client = server_context(version), client_context(version)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(certificates().ca)
    client.load_cert_chain(certificates().client)
    a, b = tls_pair(None, server, client)
    with a, b:
        a.sendall(b"x")
        assert b.recv(1) == b"x"
        certificate = b.getpeercert()
        assert certificate is not None
        assert ("email", "client@test") in certificate["subjectAltName"]


def test_a_client_is_asked_for_its_certificate_late() -> None:
    server, client = server_context(TLS13), client_context(TLS13)
    server.verify_mode = ssl.CERT_REQUIRED
    server.post_handshake_auth = client.post_handshake_auth = True
    server.load_verify_locations(certificates().ca)
    client.load_cert_chain(certificates().client)
    a, b = tls_pair(None, server, client)
    with a, b:
        reading = fibers.spawn(a.recv, 100)  # a reader that has to write: it answers while it waits
        b.verify_client_post_handshake()
        b.sendall(b"who are you?")
        assert reading.result(10) == b"who are you?"
        a.sendall(b"see my certificate")
        assert b.recv(100) == b"see my certificate"
        certificate = b.getpeercert()
        assert certificate is not None
        assert ("email", "client@test") in certificate["subjectAltName"]


def test_a_wrapped_listener_accepts_tls_connections() -> None:
    context = server_context()
    with context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:
        assert type(listener) is ssl.SSLSocket

        def serve() -> None:
            connection, address = listener.accept()
            with connection:
                assert type(connection) is ssl.SSLSocket
                assert connection.gettimeout() is None
                assert address[0] == "127.0.0.1"
                connection.sendall(connection.recv(100))

        serving = fibers.spawn(serve)
        with client_context().wrap_socket(socket.socket(), server_hostname="localhost") as tls:
            with pytest.raises(OSError, match="not connected"):
                tls.do_handshake()
            tls.connect(listener.getsockname())
            tls.sendall(b"hello")
            assert tls.recv(100) == b"hello"
            serving.result(10)
        serving = fibers.spawn(serve)
        with client_context().wrap_socket(socket.socket(), server_hostname="localhost") as tls:
            assert tls.connect_ex(listener.getsockname()) == 0
            tls.sendall(b"hello")
            assert tls.recv(100) == b"hello"
            serving.result(10)


def test_the_certificate_of_a_server_is_fetched() -> None:
    with server_context().wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:
        fetching = fibers.spawn(ssl.get_server_certificate, listener.getsockname(), timeout=10)
        with listener.accept()[0] as connection:
            assert connection.recv(1) == b""
        assert fetching.result(10) in Path(certificates().localhost).read_text()
        fetching = fibers.spawn(ssl.get_server_certificate, listener.getsockname(), ca_certs=certificates().client)
        with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
            listener.accept()
        with pytest.raises(ssl.SSLCertVerificationError):
            fetching.result(10)


@pytest.mark.parametrize("by", ["do_handshake", "reading", "writing"])
def test_the_handshake_may_be_made_later(by: str) -> None:
    near, far = tcp()
    serving = fibers.spawn(echo_once, far, server_context())
    context = client_context()
    with context.wrap_socket(near, server_hostname="localhost", do_handshake_on_connect=False) as tls:
        assert tls.version() is None
        if by == "do_handshake":
            tls.do_handshake()
            tls.do_handshake()  # does nothing
        elif by == "reading":
            tls.settimeout(0.2)
            with pytest.raises(TimeoutError, match="The read operation timed out"):
                tls.recv(1)
            tls.settimeout(5)
        tls.sendall(b"hello")
        assert tls.recv(100) == b"hello"
    serving.result(10)


def test_a_handshake_begun_by_a_reader_and_a_writer_at_once() -> None:
    near, far = tcp()
    serving = fibers.spawn(echo_once, far, server_context())
    context = client_context()
    with context.wrap_socket(near, server_hostname="localhost", do_handshake_on_connect=False) as tls:
        reading = fibers.spawn(tls.recv, 100)
        writing = fibers.spawn(tls.sendall, b"hello")
        assert reading.result(10) == b"hello"
        writing.result(10)
    serving.result(10)


@pytest.mark.parametrize("made_by", ["ours", "standard"])
def test_plain_sockets_of_any_kind_are_taken_and_lose_their_fd(made_by: str) -> None:
    module: Any = socket if made_by == "ours" else __import__("socket")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = module.create_connection(listener.getsockname(), timeout=7)
        far, _ = listener.accept()
    serving = fibers.spawn(echo_once, far, server_context())
    number = near.fileno()
    with client_context().wrap_socket(near, server_hostname="localhost") as tls:
        assert tls.fileno() == number
        assert near.fileno() == -1
        assert tls.gettimeout() == 7
        with pytest.raises(OSError, match=r"Errno 9"):
            near.recv(1)
        near.close()  # has nothing to close
        tls.sendall(b"hello")
        assert tls.recv(100) == b"hello"
    serving.result(10)


@lifetime_only
def test_a_connection_that_starts_in_plain_text_is_registered_once() -> None:
    stats = get_scheduler().loop.stats
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    asking = fibers.spawn(near.recv, 100)
    fibers.yield_now()
    far.sendall(b"220 hello\r\n")
    assert asking.result(5) == b"220 hello\r\n"
    serving = fibers.spawn(far.recv, 100)
    fibers.yield_now()
    near.sendall(b"STARTTLS\r\n")
    assert serving.result(5) == b"STARTTLS\r\n"
    far.sendall(b"220 go on\r\n")
    assert near.recv(100) == b"220 go on\r\n"
    before = stats.registrations, stats.unregistrations
    upgrading = fibers.spawn(echo_once, far, server_context())
    with client_context().wrap_socket(near, server_hostname="localhost") as tls:
        tls.sendall(b"EHLO")
        assert tls.recv(100) == b"EHLO"
        upgrading.result(10)
    after = stats.registrations, stats.unregistrations
    assert (after[0] - before[0], after[1] - before[1]) == (0, 2)


def test_select_knows_of_records_that_were_received_ahead() -> None:
    a, b = tls_pair()
    with a, b:
        for _ in range(2):
            b.sendall(b"record")
        b.send_eof()
        assert a.recv(6) == b"record"
        for expected in (b"record", b""):
            with fibers.timeout(5):
                fibers.select(fibers.readable(a))
            assert a.recv(100) == expected


# -- without waiting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tls", "plain"])
def test_reading_and_writing_without_waiting(kind: str) -> None:
    a: Any
    b: Any
    a, b = tls_pair() if kind == "tls" else tcp()
    with a, b:
        a.sendall(b"x")
        assert b.recv(1) == b"x"
        b.sendall(b"y")
        assert a.recv(1) == b"y"
        assert read_now(a, 100) is None
        assert write_now(b, b"hello") == 5
        assert unsent(b) == 0
        waiting = fibers.spawn(fibers.lowlevel.wait_readable, a.fileno(), 5)
        waiting.result(10)
        for _ in range(100):  # the loop tells it to the latch
            if (got := read_now(a, 3)) is not None:
                break
            fibers.sleep(0.01)
        assert got == b"hel"
        assert read_now(a, 100) == b"lo"
        assert read_now(a, 100) is None
        reading = fibers.spawn(a.recv, 100)
        fibers.yield_now()
        b.sendall(b"for the fiber")
        fibers.sleep(0.01)
        assert reading.result(5) == b"for the fiber"
        b.send_eof() if kind == "tls" else b.shutdown(socket.SHUT_WR)
        for _ in range(100):
            if (got := read_now(a, 3)) is not None:
                break
            fibers.sleep(0.01)
        assert got == read_now(a, 3) == b""
    with pytest.raises(OSError, match="closed"):
        read_now(a, 1)
    with pytest.raises(OSError, match="closed"):
        write_now(a, b"1")


@pytest.mark.parametrize("kind", ["tls", "plain"])
def test_what_was_written_without_waiting_is_completed_by_sendall(kind: str) -> None:
    a, b = tls_pair() if kind == "tls" else tcp()
    data = os.urandom(1000) * 20_000
    with a, b:
        sent = 0
        while taken := write_now(a, data[sent:]):
            sent += taken
        assert 0 < sent < len(data)
        assert (unsent(a) > 0) == (kind == "tls")
        reading = fibers.spawn(receive, b, len(data) + 1)
        a.sendall(data[sent:])
        assert unsent(a) == 0
        assert write_now(a, b"!") == 1
        assert reading.result(30) == data + b"!"


def test_the_interpreter_ends_quietly_with_open_connections() -> None:
    code = (
        "import fibers; from support.tls import tls_pair; pair = tls_pair(); "
        "fibers.spawn(pair[1].recv, 1); fibers.yield_now()"
    )
    done = run_python("-c", code, env={"PYTHONPATH": f"{ROOT}/tests{os.pathsep}{ROOT}"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
