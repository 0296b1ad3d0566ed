"""What goes wrong in the middle of TLS: deadlines, cancellation, kill, close, resets, slow peers, other threads, fork."""

import os
import struct
import threading
from typing import Any

import pytest
from support.backends import lifetime_only
from support.process import ROOT, run_python
from support.tls import (
    TLS12,
    TLS13,
    certificates,
    client_context,
    in_thread,
    needs_openssl,
    server_context,
    tls_pair,
)

import fibers
from fibers.io import socket, ssl
from fibers.io.state import states
from fibers.io.tls import TlsState

pytestmark = needs_openssl

BIG = os.urandom(1000) * 20_000  # more than the kernel takes


def tcp() -> tuple[Any, Any]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]


def receive(sock: Any, size: int) -> bytes:
    got = bytearray()
    while len(got) < size and (data := sock.recv(min(65536, size - len(got)))):
        got += data
    return bytes(got)


def reset(sock: Any) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# -- deadlines -------------------------------------------------------------------------------------------------------


def test_a_handshake_has_one_deadline_however_slowly_it_goes_on() -> None:
    near, far = tcp()
    with far:

        def drip() -> None:
            for byte in b"\x16\x03\x03\x40\x00" + bytes(1000):
                far.sendall(bytes([byte]))
                fibers.sleep(0.01)

        dripping = fibers.spawn(drip)
        near.settimeout(0.1)
        before = fibers.current_time()
        with pytest.raises(TimeoutError, match="The handshake operation timed out"):
            client_context().wrap_socket(near, server_hostname="localhost")
        assert fibers.current_time() - before >= 0.1
        assert not dripping.done()
        dripping.kill()
        dripping.join()


def test_a_read_has_one_deadline_however_slowly_a_record_comes() -> None:
    a, b = tls_pair()
    with a, b:
        b._sslobj.write(b"x" * 1000)
        state = states[id(b)]
        assert isinstance(state, TlsState)
        record = state.outgoing.read()

        def drip() -> None:
            for byte in record:
                socket.socket.sendall(b, bytes([byte]))
                fibers.sleep(pause[0])

        pause = [0.01]
        dripping = fibers.spawn(drip)
        a.settimeout(0.1)
        with pytest.raises(TimeoutError, match="The read operation timed out"):
            a.recv(10)
        assert not dripping.done()
        with fibers.move_on_after(0.05) as scope:
            with pytest.raises(TimeoutError, match="The read operation timed out"):
                a.recv(10)
            a.recv(10)
        assert scope.cancelled_caught
        assert not dripping.done()
        a.settimeout(None)
        pause[0] = 0
        assert a.recv(2000) == b"x" * 1000  # nothing of the record was lost
        dripping.result(10)


def test_a_cancelled_handshake_can_be_gone_on_with() -> None:
    near, far = tcp()
    context = client_context()
    with context.wrap_socket(near, server_hostname="localhost", do_handshake_on_connect=False) as tls:
        with fibers.move_on_after(0.05) as scope:
            with pytest.raises(TimeoutError, match="The handshake operation timed out"):
                tls.do_handshake()  # the deadline surfaces as the call's own timeout, once …
            tls.do_handshake()  # … and then as what it is
        assert scope.cancelled_caught
        serving = fibers.spawn(server_context().wrap_socket, far, server_side=True)
        tls.do_handshake()
        tls.sendall(b"hello")
        with serving.result(10) as other:
            assert other.recv(10) == b"hello"


# -- writes that end early -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["timeout", "cancel", "kill"])
def test_a_sendall_that_ends_early_tells_how_much_is_on_its_way_and_the_rest_can_follow(way: str) -> None:
    a, b = tls_pair()
    told: list[int] = []

    def send() -> None:
        try:
            a.sendall(BIG)
        except BaseException as error:
            told.append(error.bytes_sent)  # type: ignore[attr-defined]
            raise

    with a, b:
        if way == "timeout":
            a.settimeout(0.05)
            with pytest.raises(TimeoutError, match="The write operation timed out"):
                send()
            a.settimeout(None)
        else:
            sending = fibers.spawn(send)
            fibers.sleep(0.05)
            sending.cancel() if way == "cancel" else sending.kill()
            with pytest.raises(fibers.FiberCancelled):
                sending.result(5)
        (sent,) = told
        assert 0 < sent < len(BIG)
        reading = fibers.spawn(receive, b, len(BIG) + 5)
        a.sendall(BIG[sent:])
        a.sendall(b"after")
        assert reading.result(30) == BIG + b"after"


@pytest.mark.parametrize("blocking", [True, False])
def test_a_send_that_ended_early_is_repeated_with_the_same_data_and_with_no_other(blocking: bool) -> None:
    a, b = tls_pair()
    with a, b:
        a.settimeout(0.05 if blocking else 0)
        with pytest.raises(TimeoutError if blocking else ssl.SSLWantWriteError):
            a.send(BIG)
        with pytest.raises(ssl.SSLError, match="BAD_WRITE_RETRY"):
            a.send(b"something else")
        with pytest.raises(ssl.SSLError, match="BAD_WRITE_RETRY"):
            a.sendall(bytes(len(BIG)))
        reading = fibers.spawn(receive, b, len(BIG) + 5)
        if blocking:
            a.settimeout(None)
            assert a.send(memoryview(bytearray(BIG))) == len(BIG)  # another buffer will do
        else:
            sent = 0
            while sent < len(BIG):
                try:
                    sent += a.send(BIG[sent:])
                except ssl.SSLWantWriteError:
                    fibers.lowlevel.wait_writable(a.fileno(), 5)
            a.settimeout(None)
        a.sendall(b"after")
        assert reading.result(30) == BIG + b"after"


def test_a_cancelled_reader_loses_nothing() -> None:
    a, b = tls_pair()
    with a, b:
        for number in range(50):
            reading = fibers.spawn(a.recv, 100)
            fibers.yield_now()
            sending = fibers.spawn(b.sendall, b"%2d" % number)
            if number % 2:
                fibers.yield_now()
            reading.cancel()
            sending.result(5)
            try:
                got = reading.result(5)
            except fibers.FiberCancelled:
                got = a.recv(100)
            assert got == b"%2d" % number


# -- closing ---------------------------------------------------------------------------------------------------------


def test_close_wakes_everybody_who_waits() -> None:
    a, b = tls_pair()
    near, far = tcp()
    with a, b, near, far:
        later = client_context().wrap_socket(near, server_hostname="localhost", do_handshake_on_connect=False)
        waiting = [
            fibers.spawn(a.recv, 1),
            fibers.spawn(a.recv_into, bytearray(5)),
            fibers.spawn(a.sendall, BIG),
            fibers.spawn(a.send, b"queued"),
            fibers.spawn(later.do_handshake),
        ]
        fibers.sleep(0.02)
        a.close()
        later.close()
        for each in waiting:
            with pytest.raises(fibers.ClosedError):
                each.result(5)
        for use, argument in ((a.recv, 1), (a.send, b"1"), (a.recv_into, bytearray(5))):
            with pytest.raises(OSError, match="Errno 9"):
                use(argument)


def test_close_in_the_middle_of_unwrap() -> None:
    a, b = tls_pair()
    with a, b:
        unwrapping = fibers.spawn(a.unwrap)
        fibers.sleep(0.01)
        a.close()
        with pytest.raises(fibers.ClosedError):
            unwrapping.result(5)


@lifetime_only
def test_closed_from_another_thread_while_a_fiber_reads_and_one_writes() -> None:
    a, b = tls_pair()
    with b:
        waiting = [fibers.spawn(a.recv, 1), fibers.spawn(a.sendall, BIG)]
        fibers.sleep(0.02)
        with in_thread(a.close):
            for each in waiting:
                with pytest.raises(fibers.ClosedError):
                    each.result(5)


def test_a_failed_handshake_closes_the_socket_and_tells_the_peer_why() -> None:
    near, far = tcp()
    serving = fibers.spawn(server_context(TLS12).wrap_socket, far, server_side=True)
    with pytest.raises(ssl.SSLCertVerificationError, match="CERTIFICATE_VERIFY_FAILED"):
        ssl.create_default_context().wrap_socket(near, server_hostname="localhost")
    with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
        serving.result(10)


# -- a peer that is rude ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
def test_a_reset_is_an_error_of_reading_and_of_writing(version: Any) -> None:
    a, b = tls_pair(version)
    with a:
        reading = fibers.spawn(a.recv, 10)
        fibers.yield_now()
        reset(b)
        with pytest.raises(ConnectionResetError):
            reading.result(5)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            a.sendall(BIG)


def test_a_reset_in_the_middle_of_a_handshake() -> None:
    near, far = tcp()
    shaking = fibers.spawn(client_context().wrap_socket, near, server_hostname="localhost")
    far.recv(100)
    reset(far)
    with pytest.raises(ConnectionResetError):
        shaking.result(5)


def test_a_reset_in_the_middle_of_a_write() -> None:
    a, b = tls_pair()
    with a:
        sending = fibers.spawn(a.sendall, BIG)
        b.recv(100)
        reset(b)
        with pytest.raises((BrokenPipeError, ConnectionResetError)) as caught:
            sending.result(5)
        assert getattr(caught.value, "bytes_sent", 0) > 0


def test_a_record_that_was_tampered_with() -> None:
    a, b = tls_pair()
    with a, b:
        b.sendall(b"good")
        socket.socket.sendall(b, b"\x17\x03\x03\x00\x20" + b"?" * 32)
        assert a.recv(10) == b"good"
        with pytest.raises(ssl.SSLError, match="DECRYPTION_FAILED_OR_BAD_RECORD_MAC"):
            a.recv(10)
        with pytest.raises(ssl.SSLError):  # the alert
            b.recv(10)


def test_what_pending_finds_wrong_is_told_by_the_next_read() -> None:
    a, b = tls_pair()
    with a, b:
        b._sslobj.write(b"good")
        state = states[id(b)]
        assert isinstance(state, TlsState)
        socket.socket.sendall(b, state.outgoing.read() + b"\x17\x03\x03\x00\x20" + b"?" * 32)
        assert a.recv(10) == b"good"
        assert a.pending() == 0
        with pytest.raises(ssl.SSLError, match="DECRYPTION_FAILED_OR_BAD_RECORD_MAC"):
            a.recv(10)


def test_a_reader_so_slow_that_every_write_has_to_wait() -> None:
    near, far = tcp()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    serving = fibers.spawn(server_context().wrap_socket, far, server_side=True)
    with client_context().wrap_socket(near, server_hostname="localhost") as a, serving.result(10) as b:
        data = BIG[:50_000]
        sending = fibers.spawn(b.sendall, data)
        got = bytearray()
        while len(got) < len(data):
            got += a.recv(1000)
            if len(got) % 7 == 0:
                fibers.yield_now()
        sending.result(10)
        assert got == data


def test_a_certificate_chain_larger_than_the_send_buffer() -> None:
    """The handshake's own writing has to wait."""
    near, far = tcp()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    server, client = server_context(), client_context()
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(certificates().ca)
    client.load_cert_chain(certificates().client)
    serving = fibers.spawn(server.wrap_socket, far, server_side=True)
    with client.wrap_socket(near, server_hostname="localhost") as a, serving.result(10) as b:
        sending = fibers.spawn(a.sendall, b"x" * 100_000)
        assert receive(b, 100_000) == b"x" * 100_000
        sending.result(10)


# -- threads and fork ------------------------------------------------------------------------------------------------


@lifetime_only
def test_a_connection_moves_to_another_thread_and_belongs_to_one_at_a_time() -> None:
    a, b = tls_pair()
    with a, b:
        a.sendall(b"from the main thread")
        assert b.recv(100) == b"from the main thread"

        def elsewhere() -> None:
            assert a.recv(100) == b"to the other thread"
            a.sendall(b"from the other thread")

        with in_thread(elsewhere):
            b.sendall(b"to the other thread")
            assert b.recv(100) == b"from the other thread"
        b.sendall(b"back")
        assert a.recv(100) == b"back"
        reading = fibers.spawn(a.recv, 100)
        fibers.yield_now()

        def too_soon() -> None:
            with pytest.raises(fibers.OwnershipError, match="belongs to"):
                a.recv(1)

        with in_thread(too_soon):
            pass
        b.sendall(b"x")
        assert reading.result(5) == b"x"


def test_threads_that_write_at_once_do_not_tear_records() -> None:
    """Non-blocking, so that no loop owns the connection: what is exclusive is the connection's own lock."""
    a, b = tls_pair()
    with a, b:
        a.setblocking(False)
        count, threads = 300, 4
        failures: list[BaseException] = []

        def write(number: int) -> None:
            try:
                for each in range(count):
                    a.sendall(b"%1d:%4d;" % (number, each))
            except BaseException as error:
                failures.append(error)

        workers = [threading.Thread(target=write, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        got = receive(b, 7 * count * threads)
        for worker in workers:
            worker.join()
        assert not failures
        words = got.split(b";")[:-1]
        for number in range(threads):
            mine = [word for word in words if word.startswith(b"%d:" % number)]
            assert mine == [b"%1d:%4d" % (number, each) for each in range(count)]


FORK = """
import os
import fibers
from support.tls import tls_pair

def main():
    a, b = tls_pair()
    a.sendall(b"before")
    assert b.recv(100) == b"before"
    reading = fibers.spawn(a.recv, 100)
    fibers.yield_now()
    child = os.fork()
    if child == 0:
        b.sendall(b"from the child")  # its state is a copy: one of the two may go on with the connection
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert reading.result(10) == b"from the child"
    a.sendall(b"to the parent")
    assert b.recv(100) == b"to the parent"
    a.close()
    b.close()

fibers.run(main)
print("done")
"""


def test_a_forked_child_goes_on_with_one_end_of_a_connection() -> None:
    done = run_python("-c", FORK, env={"PYTHONPATH": f"{ROOT}/tests{os.pathsep}{ROOT}"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


IN_PLACE = """
import socket, ssl, threading
import fibers
from fibers.io import connecting, operations, state, tls_handshake, tls_operations, tls_sockets
from support.tls import certificates

def context(side):
    if side == "server":
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(certificates().localhost)
        return made
    return ssl.create_default_context(cafile=certificates().ca)

def pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]

def wrap(sock, side):
    if side == "server":
        return context(side).wrap_socket(sock, server_side=True)
    return context(side).wrap_socket(sock, server_hostname="localhost")

def both(run):
    near, far = pair()
    made = {}
    def serve():
        made["far"] = wrap(far, "server")
    other = run(serve)
    made["near"] = wrap(near, "client")
    other.join()
    return made["near"], made["far"]

class Thread(threading.Thread):
    def __init__(self, fn):
        super().__init__(target=fn)
        self.start()

old = both(Thread)  # made while everything was the standard library's

from fibers.io import socket as ours
for name in ("recv", "recv_into", "send", "sendall"):
    setattr(socket.socket, name, getattr(operations, name))
for name in ("settimeout", "gettimeout", "setblocking", "getblocking"):
    setattr(socket.socket, name, getattr(ours.socket, name))
socket.socket.connect = connecting.connect
socket.socket._real_close = lambda self, _ss=None: state.close(self)
for name in ("read", "write", "recv", "recv_into", "send", "sendall", "pending"):
    setattr(ssl.SSLSocket, name, getattr(tls_operations, name))
for name in ("do_handshake", "unwrap"):
    setattr(ssl.SSLSocket, name, getattr(tls_handshake, name))
for name in ("connect", "connect_ex", "accept", "shutdown"):
    setattr(ssl.SSLSocket, name, getattr(tls_sockets, name))
ssl.SSLSocket._real_close = tls_sockets.real_close
ssl.SSLSocket._create = classmethod(tls_sockets.create)

def echo(sock, size):
    got = 0
    while got < size:
        data = sock.recv(100_000)
        sock.sendall(data)
        got += len(data)

def talk(near, far):
    data = bytes(3_000_000)
    served = fibers.spawn(echo, far, len(data))
    writing = fibers.spawn(near.sendall, data)
    got = 0
    while got < len(data):
        got += len(near.recv(50_000))
    writing.result(20)
    served.result(20)
    near.settimeout(0.01)
    try:
        near.recv(1)
    except TimeoutError as error:
        assert str(error) == "The read operation timed out", error
    else:
        raise AssertionError
    near.settimeout(None)
    far.settimeout(None)
    ending = fibers.spawn(near.unwrap)
    far.unwrap()
    ending.result(5)
    near.send(b"plain")
    assert far.recv(10) == b"plain"
    near.close()
    far.close()

def main():
    new = both(fibers.spawn)
    pairs = [fibers.spawn(talk, *each) for each in (old, new)]
    for each in pairs:
        each.result(30)

fibers.run(main)
print("both talked")
"""


def test_the_standard_class_with_our_methods_suspends_only_its_fiber() -> None:
    done = run_python("-W", "error", "-c", IN_PLACE, env={"PYTHONPATH": f"{ROOT}/tests{os.pathsep}{ROOT}"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "both talked\n", "")


def test_a_ctrl_c_is_not_lost_and_tears_nothing() -> None:
    code = """
import os, signal
import fibers
from support.tls import tls_pair

def main():
    a, b = tls_pair()
    seen = 0
    total = bytearray()
    for number in range(200):
        try:
            if number % 4 == 0:
                os.kill(os.getpid(), signal.SIGINT)
            a.sendall(b"%4d" % number)
        except KeyboardInterrupt:
            seen += 1
    try:
        fibers.sleep(0.01)
    except KeyboardInterrupt:
        seen += 1
    a.send_eof()
    while data := b.recv(1000):
        total += data
    numbers = [int(total[at : at + 4]) for at in range(0, len(total), 4)]
    assert numbers == sorted(set(numbers)), numbers
    print(seen > 0, len(numbers) >= 100)
    a.close()
    b.close()

fibers.run(main)
"""
    done = run_python("-c", code, env={"PYTHONPATH": f"{ROOT}/tests{os.pathsep}{ROOT}"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True\n", "")


def test_garbage_collection_of_an_open_connection_closes_it() -> None:
    a, b = tls_pair(TLS12)  # without tickets that nobody reads: the kernel would answer with a reset
    number = a.fileno()
    with pytest.warns(ResourceWarning, match="unclosed"):
        del a
    assert b.recv(1) == b""
    b.close()
    with pytest.raises(OSError, match="Errno 9"):
        os.fstat(number)
