"""Many files at once: 5,000 that are waited for, each by a fiber of its own, and what select says of the 1,025th.

In child processes, which may raise their own limit of open files.
"""

import resource
from textwrap import dedent

import pytest
from support.process import run_python

from fibers.eventloop import BACKEND, CHECKED

FILES = 5000

#: Raises the limit of open files, and says how many there may be.
LIMIT = dedent(
    """
    import resource
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (11_000 if hard == resource.RLIM_INFINITY else min(hard, 11_000), hard))
    """
)

MANY = LIMIT + dedent(
    f"""
    import fibers, socket as standard
    from fibers.eventloop import TIMED_OUT
    from fibers.io import socket
    from fibers.core.scheduler import SLEEPING, get_scheduler

    def main():
        scheduler = get_scheduler()
        stats = scheduler.loop.stats

        def read(sock):
            data = sock.recv(10)
            # Who is woken twice comes out of its next wait before its time.
            outcome = scheduler.park(fibers.current(), SLEEPING, scheduler.loop.clock() + 0.2)
            return data, outcome is TIMED_OUT

        pairs = [socket.socketpair() for _ in range({FILES})]
        readers = [fibers.spawn(read, a) for a, _ in pairs]
        fibers.sleep(0.05)
        assert all(reader.waiting is not None for reader in readers)
        turns = stats.turns
        for number, (_, b) in enumerate(pairs):
            standard.socket.send(b, b"%d" % number)
        assert [reader.result(60) for reader in readers] == [(b"%d" % number, True) for number in range(len(pairs))]
        turns = stats.turns - turns
        assert stats.registrations >= len(pairs)
        highest = max(a.fileno() for a, _ in pairs)
        for pair in pairs:
            for sock in pair:
                sock.close()
        assert stats.registrations == stats.unregistrations
        print(highest, turns)

    fibers.run(main)
    """
)


def hard_limit() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1 << 30 if hard == resource.RLIM_INFINITY else hard


needs_many_files = pytest.mark.skipif(hard_limit() < 2 * FILES + 500, reason="10,500 open files are not allowed here")


@needs_many_files
@pytest.mark.parametrize("backend", sorted({BACKEND, "poll"} - {"select"}))
def test_5000_waiting_fibers_are_each_woken_once(backend: str) -> None:
    """On poll, which has no limit of 1,024 descriptors, and on the loop in use, unless that is select."""
    done = run_python("-c", MANY, env={"FIBERS_EVENTLOOP": backend})
    assert done.returncode == 0, done.stderr
    highest, turns = map(int, done.stdout.split())
    assert highest > FILES
    assert turns < 500 or CHECKED, (
        "a turn tells of many files"
    )  # checks of 5,000 files take so long that turns are many


# -- select ---------------------------------------------------------------------------------------------------------

ADVICE = r"select cannot wait for fd %d, its limit is 1023: choose FIBERS_EVENTLOOP=poll, or epoll or kqueue"

SELECT = (
    LIMIT
    + dedent(
        """
    import os, socket as standard
    import fibers, pytest
    from fibers.io import socket

    def high(sock, number):
        number = os.dup2(sock.fileno(), number)
        return socket.socket(fileno=number)
    """
    )
    + f"ADVICE = {ADVICE!r}\n"
)

needs_high_numbers = pytest.mark.skipif(hard_limit() < 1600, reason="descriptors over 1,024 are not allowed here")


def on_select(code: str) -> str:
    done = run_python("-c", SELECT + dedent(code), env={"FIBERS_EVENTLOOP": "select"})
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_high_numbers
def test_a_fiber_that_would_wait_for_too_high_a_number_is_told_what_to_choose() -> None:
    """Each time; what need not wait works; nobody else notices."""
    on_select(
        """
        def main():
            a, b = socket.socketpair()
            c, d = socket.socketpair()
            bystander = fibers.spawn(c.recv, 10)
            with high(a, 1500) as sock:
                for _ in range(2):
                    with pytest.raises(ValueError, match=ADVICE % 1500):
                        fibers.spawn(sock.recv, 10).result()
                b.send(b"x")
                assert sock.recv(10) == b"x", "a call that need not wait"
                sock.settimeout(5)
                with pytest.raises(ValueError, match=ADVICE % 1500):
                    sock.recv(10)
                with pytest.raises(ValueError, match=ADVICE % 1500):
                    fibers.lowlevel.wait_readable(1500)
                waiting = fibers.spawn(a.recv, 10)
                fibers.yield_now()
                b.send(b"y")
                assert waiting.result() == b"y", "the same file under a number that fits"
            d.send(b"z")
            assert bystander.result() == b"z"
            for sock in (a, b, c, d):
                sock.close()

        fibers.run(main)
        """
    )


@needs_high_numbers
def test_a_server_goes_on_after_a_connection_with_too_high_a_number() -> None:
    on_select(
        """
        def serve(connection):
            with connection:
                connection.sendall(connection.recv(10))

        def main():
            listener = socket.create_server(("127.0.0.1", 0))
            held = [os.dup(0) for _ in range(1100)]
            client = standard.create_connection(listener.getsockname())
            connection, _ = listener.accept()
            assert connection.fileno() > 1023
            with pytest.raises(ValueError, match=ADVICE % connection.fileno()):
                fibers.spawn(serve, connection).result()
            assert client.recv(10) == b"", "it has been closed"
            client.close()
            for fd in held:
                os.close(fd)
            with standard.create_connection(listener.getsockname()) as client:
                connection, _ = listener.accept()
                client.send(b"hello")
                fibers.spawn(serve, connection).result()
                assert client.recv(10) == b"hello"
            listener.close()

        fibers.run(main)
        """
    )


@needs_high_numbers
def test_a_loop_that_cannot_have_its_own_descriptors_below_the_limit_leaves_nothing_behind() -> None:
    on_select(
        """
        held = [os.dup(0) for _ in range(1100)]
        before = set(os.listdir("/dev/fd"))
        with pytest.raises(ValueError, match="select cannot wait for fd 11.*choose FIBERS_EVENTLOOP=poll"):
            fibers.run(print)
        assert set(os.listdir("/dev/fd")) == before
        for fd in held:
            os.close(fd)
        fibers.run(fibers.sleep, 0.001)
        """
    )
