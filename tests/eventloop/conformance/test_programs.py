"""Whole programs, with sockets, sleeps, cancellation and threads, behave alike on every loop that `run` is given."""

import errno
import os
import socket as std
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.loops import Kind, lifetime_loops
from support.sockets import tcp_pair

import fibers
from fibers import lowlevel
from fibers.core.scheduler import get_scheduler
from fibers.eventloop import EventLoop
from fibers.io import socket
from fibers.threads.to_thread import to_thread

OnLoop = Callable[..., Any]


def test_run_uses_the_loop_that_it_is_given_and_closes_it(loop_factory: Kind) -> None:
    def main() -> EventLoop:
        fibers.sleep(0.001)
        return get_scheduler().loop

    def program() -> tuple[bool, bool]:
        loop = loop_factory()
        return fibers.run(main, loop=loop) is loop, loop.closed

    assert to_thread(program) == (True, True)


def test_a_server_and_its_clients(on_loop: OnLoop) -> None:
    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(1000):
                connection.sendall(data.upper())

    def client(address: Any, number: int) -> bytes:
        answer = b""
        with socket.create_connection(address) as sock:
            for part in range(5):
                sock.sendall(b"hello %d %d;" % (number, part))
                while answer.count(b";") <= part:
                    answer += sock.recv(7)
                fibers.yield_now()
        return answer

    def main() -> list[bytes]:
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def accept() -> None:
                while True:
                    fibers.spawn(serve, listener.accept()[0])

            acceptor = fibers.spawn(accept)
            clients = [fibers.spawn(client, listener.getsockname(), number) for number in range(10)]
            answers = [each.result(10) for each in clients]
            acceptor.cancel()
            acceptor.join(5)
        return answers

    expected = [b"".join(b"HELLO %d %d;" % (number, part) for part in range(5)) for number in range(10)]
    assert on_loop(main) == expected


def test_more_bytes_than_any_buffer_holds(on_loop: OnLoop) -> None:
    """Two writers that must wait, again and again: each `sendall` is one piece."""
    size = 1 << 20

    def main() -> bytes:
        a, b = tcp_pair()
        with a, b:
            writers = [fibers.spawn(a.sendall, letter * size) for letter in (b"a", b"b")]
            received = bytearray()
            while len(received) < 2 * size:
                received += b.recv(65536)
            for each in writers:
                each.result(5)
        return bytes(received)

    assert on_loop(main) == b"a" * size + b"b" * size


def test_readers_of_one_socket_take_turns(on_loop: OnLoop) -> None:
    """One edge for many messages, and many readers: nobody is left behind."""

    def main() -> list[bytes]:
        a, b = socket.socketpair(std.AF_UNIX, std.SOCK_DGRAM)
        with a, b:
            readers = [fibers.spawn(a.recv, 10) for _ in range(8)]
            fibers.yield_now()
            for number in range(8):
                b.send(b"%d" % number)
            return [each.result(5) for each in readers]

    assert on_loop(main) == [b"%d" % number for number in range(8)]


def test_sleepers_wake_in_order_and_never_early(on_loop: OnLoop) -> None:
    def main() -> list[int]:
        order: list[int] = []

        def sleep(number: int) -> None:
            end = fibers.current_time() + number * 0.002
            fibers.sleep(number * 0.002)
            assert fibers.current_time() >= end
            order.append(number)

        every = [fibers.spawn(sleep, number) for number in (3, 1, 4, 0, 2)]
        for each in every:
            each.result(5)
        return order

    assert on_loop(main) == [0, 1, 2, 3, 4]


def test_timeouts_and_data_that_beat_them(on_loop: OnLoop) -> None:
    def main() -> list[Any]:
        seen: list[Any] = []
        a, b = socket.socketpair()
        with a, b:
            a.settimeout(0.005)
            with pytest.raises(TimeoutError):
                a.recv(1)
            late = fibers.spawn(a.recv, 1)
            fibers.yield_now()
            b.send(b"x")
            end = fibers.current_time() + 0.01
            while fibers.current_time() < end:
                pass
            seen.append(late.result(5))
            with fibers.move_on_after(0.005) as scope:
                a.settimeout(None)
                a.recv(1)
            seen.append(scope.cancelled_caught)
            b.send(b"y")
            seen.append(a.recv(1))
        return seen

    assert on_loop(main) == [b"x", True, b"y"]


def test_cancelled_in_every_place_and_nothing_is_lost(on_loop: OnLoop) -> None:
    def main() -> tuple[int, bytes]:
        a, b = socket.socketpair()
        with a, b:
            while True:
                try:
                    a.send(bytes(65536), socket.MSG_DONTWAIT)
                except BlockingIOError:
                    break
            waits: list[fibers.Fiber[Any]] = [
                fibers.spawn(fibers.sleep, 60),
                fibers.spawn(a.recv, 1),
                fibers.spawn(a.recv, 1),  # in the queue
                fibers.spawn(a.sendall, b"x"),
                fibers.spawn(lowlevel.park),
                fibers.spawn(to_thread, int),
            ]
            fibers.yield_now()
            for each in waits:
                each.cancel()
            ended = 0
            for each in waits:
                ended += isinstance(each.exception(5), fibers.FiberCancelled | None)
            b.send(b"still there")
            return ended, a.recv(100)

    assert on_loop(main) == (6, b"still there")


def test_closing_wakes_whoever_waits(on_loop: OnLoop) -> None:
    def main() -> list[type[BaseException]]:
        a, b = socket.socketpair()
        readers = [fibers.spawn(a.recv, 1) for _ in range(3)]
        fibers.yield_now()
        a.close()
        raised: list[type[BaseException]] = []
        for waiting in readers:
            error = waiting.exception(5)
            assert isinstance(error, OSError)
            assert error.errno == errno.EBADF
            raised.append(type(error))
        # The number comes back, and nothing of the old file with it.
        c, d = socket.socketpair()
        reader = fibers.spawn(c.recv, 1)
        fibers.yield_now()
        d.send(b"x")
        assert reader.result(5) == b"x"
        for each in (b, c, d):
            each.close()
        return raised

    assert on_loop(main) == [fibers.ClosedError] * 3


def test_threads_wake_join_and_close(on_loop: OnLoop) -> None:
    def main() -> list[Any]:
        seen: list[Any] = []
        me = fibers.current()
        unparker = threading.Thread(target=lowlevel.unpark, args=(me,))
        unparker.start()
        lowlevel.park(5)
        unparker.join()
        seen.append("unparked")
        seen.append(to_thread(lambda: fibers.run(lambda: fibers.spawn(int, 7).result(5))))
        a, b = socket.socketpair()
        reader = fibers.spawn(a.recv, 1)
        fibers.yield_now()
        to_thread(a.close)
        seen.append(type(reader.exception(5)))
        b.close()
        return seen

    assert on_loop(main) == ["unparked", 7, fibers.ClosedError]


def test_a_socket_moves_between_threads_when_nothing_is_pending(on_loop: OnLoop) -> None:
    def main() -> list[bytes]:
        a, b = socket.socketpair()
        with a, b:
            got = []
            for _ in range(3):
                for there in (False, True):
                    fibers.spawn(b.send, b"x")
                    got.append(to_thread(lambda: fibers.run(a.recv, 1)) if there else a.recv(1))
            return got

    assert on_loop(main) == [b"x"] * 6


@lifetime_loops("any thread may wait for a file in a libevent loop of its own")
def test_a_socket_with_an_operation_pending_does_not_move(loop_factory: Kind, on_loop: OnLoop) -> None:
    def main() -> bytes:
        a, b = socket.socketpair()
        with a, b:
            reader = fibers.spawn(a.recv, 1)
            fibers.yield_now()
            get_scheduler().loop.turn(False)

            def elsewhere() -> None:
                with pytest.raises(fibers.OwnershipError):
                    a.recv(1)

            to_thread(lambda: fibers.run(elsewhere, loop=loop_factory()))
            b.send(b"x")
            return reader.result(5)

    assert on_loop(main) == b"x"


def test_borrowed_fds(on_loop: OnLoop) -> None:
    """#15374: waited for by number, several at once, also one that is a socket of ours."""

    def main() -> list[bool]:
        reader, writer = os.pipe()
        waiting = [fibers.spawn(lowlevel.wait_readable, reader) for _ in range(3)]
        fibers.yield_now()
        os.write(writer, b"x")
        for each in waiting:
            each.result(5)
        os.read(reader, 1)
        with pytest.raises(TimeoutError):
            lowlevel.wait_readable(reader, 0.002)
        lowlevel.wait_writable(writer, 5)
        os.close(reader)
        os.close(writer)
        a, b = socket.socketpair()
        with a, b:
            mine = fibers.spawn(a.recv, 1)
            waiting = [fibers.spawn(lowlevel.wait_readable, a) for _ in range(2)]
            fibers.yield_now()
            b.send(b"xy")  # one byte stays
            done = [each.exception(5) is None for each in waiting]
            assert mine.result(5) == b"x"
        stats = get_scheduler().loop.stats
        return [*done, stats.registrations == stats.unregistrations]

    assert on_loop(main) == [True, True, True]


def test_files_that_never_block(on_loop: OnLoop, tmp_path: Any) -> None:
    (tmp_path / "document").write_bytes(b"words " * 1000)

    def main() -> int:
        a, b = socket.socketpair()
        with a, b, open(tmp_path / "document", "rb") as document:
            lowlevel.wait_readable(document, 5)
            sender = fibers.spawn(a.sendfile, document)
            size = 0
            while size < 6000:
                size += len(b.recv(4096))
            assert sender.result(5) == 6000
        return size

    assert on_loop(main) == 6000


def test_refused_and_half_closed_connections(on_loop: OnLoop) -> None:
    def main() -> list[Any]:
        seen: list[Any] = []
        with std.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = free.getsockname()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        a, b = tcp_pair()
        with a, b:
            a.sendall(b"last words")
            a.shutdown(socket.SHUT_WR)
            seen += [b.recv(100), b.recv(100)]
            b.sendall(b"answer")
            seen.append(a.recv(100))
        return seen

    assert on_loop(main) == [b"last words", b"", b"answer"]


def test_what_is_left_at_the_end_is_cancelled(on_loop: OnLoop) -> None:
    ended: list[str] = []
    pairs: list[socket.socket] = []

    def main() -> None:
        pairs.extend(socket.socketpair())

        def hold(function: Callable[..., Any], *args: Any) -> None:
            try:
                function(*args)
            finally:
                ended.append("unwound")

        for args in ((pairs[0].recv, 1), (fibers.sleep, 60), (lowlevel.park,)):
            fibers.spawn(hold, *args)
        fibers.yield_now()

    on_loop(main)
    for each in pairs:
        each.close()
    assert ended == ["unwound"] * 3
