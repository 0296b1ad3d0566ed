"""When descriptors or memory run out: pauses, a clear answer in the end, one line in the log, and back to work."""

import errno
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.server_program import Program, ask, connect

import fibers
from fibers.io import socket
from fibers.server import accepting
from fibers.server.accepting import Acceptor

STORM = """
import resource
from fibers.server import accepting
accepting.LONGEST_PAUSE = {pause}
resource.setrlimit(resource.RLIMIT_NOFILE, (60, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
server = TCPServer(("127.0.0.1", 0), echo, threads={threads}, graceful_timeout=1)
server.start()
say(server.address[1])
server.serve_forever()
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_a_storm_of_connections(threads: int, tmp_path: Path) -> None:
    with Program(tmp_path, STORM.format(pause=0.02, threads=threads)) as program, ExitStack() as stack:
        address = ("127.0.0.1", int(program.line()))
        program.told("READY=1")
        clients = [stack.enter_context(connect(address)) for _ in range(200)]
        served = turned_away = 0
        for client in clients:
            try:
                client.sendall(b"x")
                answer = client.recv(1)
            except ConnectionError:
                answer = b""
            served += answer == b"x"
            turned_away += answer == b""
        assert served + turned_away == 200  # none waits for ever
        assert 0 < served < 60
        for client in clients:
            client.close()
        while again(address) != b"again":
            pass  # the server has not seen all of them go
        program.signal(15)
        assert program.end() == 0
        log = program.log()
        assert 1 <= log.count("cannot accept connections") <= threads


def again(address: Any) -> bytes:
    try:
        return ask(address, b"again")
    except ConnectionError:
        return b""


class Listener:
    """Fails so often, and then has one connection."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.timeout: float | None = None
        self.calls = 0

    def accept(self) -> tuple[Any, Any]:
        self.calls += 1
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, "as it was told")
        left, right = socket.socketpair()
        left.close()
        return right, "somebody"

    def fileno(self) -> int:
        return 0

    def close(self) -> None:
        pass

    def gettimeout(self) -> float | None:
        return self.timeout

    def settimeout(self, timeout: float | None) -> None:
        self.timeout = timeout


class Service:
    """Takes one connection."""

    def __init__(self, idle: int = 0) -> None:
        self.idle = idle
        self.taken = fibers.Event()
        self.acceptor: Any = None

    def room(self) -> bool:
        return not self.taken.is_set()

    def take(self, sock: Any, address: Any) -> None:
        sock.close()
        self.taken.set()

    def give_back(self) -> bool:
        self.idle -= 1
        return self.idle >= 0


def accept_one(listener: Listener, service: Service) -> None:
    acceptor = Acceptor(listener, service, "here")  # type: ignore[arg-type]
    fiber = fibers.spawn(acceptor.run)
    try:
        service.taken.wait()
    finally:
        fiber.cancel()
        fiber.join()
        acceptor.close()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "FIRST_PAUSE", 0.0005)
    monkeypatch.setattr(accepting, "LONGEST_PAUSE", 0.001)
    monkeypatch.setattr(accepting, "QUIET", 0)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_it_is_said_once_for_each_time(number: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fibers.server")
    listener = Listener(*[number] * 6)
    accept_one(listener, Service())
    messages = [each.getMessage() for each in caplog.records if each.name == "fibers.server"]
    assert len(messages) == 2
    assert messages[0] == "cannot accept connections on here for now: as it was told"
    assert "accepting connections on here again" in messages[1]


def test_idle_connections_are_asked_for_before_anybody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "sleep", lambda seconds: pytest.fail("nothing had to wait"))
    accept_one(Listener(errno.EMFILE, errno.EMFILE), Service(idle=2))


def test_pauses_grow_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(accepting, "LONGEST_PAUSE", 0.05)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        fibers.yield_now()

    monkeypatch.setattr(accepting, "sleep", sleep)
    accept_one(Listener(*[errno.ENOBUFS] * 6), Service())
    assert pauses == [0.01, 0.02, 0.04, 0.05, 0.05, 0.05]


@pytest.mark.parametrize("number", sorted(accepting._PASSING))
def test_an_error_of_the_connection_is_none_of_the_listener(number: int) -> None:
    accept_one(Listener(number, number), Service())


def test_another_error_is() -> None:
    acceptor = Acceptor(Listener(errno.EINVAL), Service(), "here")  # type: ignore[arg-type]
    with pytest.raises(OSError, match="as it was told"):
        acceptor.run()
    acceptor.close()


def test_at_the_end_the_queue_is_drained_as_far_as_that_goes(caplog: pytest.LogCaptureFixture) -> None:
    listener = Listener(errno.ECONNABORTED, errno.EMFILE, errno.EMFILE)
    acceptor = Acceptor(listener, Service(idle=1), "here")  # type: ignore[arg-type]
    acceptor.drain()
    assert listener.calls == 3
    assert "not all who waited for here could be accepted" in caplog.text
