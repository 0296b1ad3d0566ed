"""A deadline of a scope inside calls that have a timeout of their own: it surfaces there, once, as that timeout.

Facts. Drivers handle the timeout error of a socket, and nothing else that may strike between two bytes of an exchange. So
a scope's deadline that hits a socket operation, or `join(timeout)`, is a TimeoutError there; each further call raises
Cancelled, so that a driver which tries again ends as well. The error is the scope's, also when a driver has made one of
its own of it. Only deadlines do this: whoever calls `cancel()` gets Cancelled.
"""

import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.sockets import Pair

import fibers
from fibers import lowlevel
from fibers.core.scheduler import get_scheduler
from fibers.io import socket
from fibers.threads.to_thread import to_thread

FOREVER = float("inf")
Call = Callable[[], object]


class DriverError(Exception):
    """What a database driver raises."""


def recv(pair: Pair) -> Call:
    return lambda: pair[0].recv(1)


def recv_with_timeout(pair: Pair) -> Call:
    pair[0].settimeout(3600)
    return lambda: pair[0].recv(1)


def recv_into(pair: Pair) -> Call:
    return lambda: pair[0].recv_into(bytearray(1))


def recv_all(pair: Pair) -> Call:
    return lambda: pair[0].recv(2, socket.MSG_WAITALL)


def recvmsg(pair: Pair) -> Call:
    return lambda: pair[0].recvmsg(1)


def sendall(pair: Pair) -> Call:
    return lambda: pair[0].sendall(bytes(10_000_000))


def send(pair: Pair) -> Call:
    fill(pair)
    return lambda: pair[0].send(b"x")


def fill(pair: Pair) -> None:
    pair[0].settimeout(0)
    with pytest.raises(BlockingIOError):
        while True:
            pair[0].send(bytes(65536))
    pair[0].settimeout(None)


def wait_readable(pair: Pair) -> Call:
    return lambda: lowlevel.wait_readable(pair[0].fileno(), 3600)


def park(pair: Pair) -> Call:
    return lambda: lowlevel.park(3600)


def join(pair: Pair) -> Call:
    other = endless()
    return lambda: other.join(3600)


def result(pair: Pair) -> Call:
    other = endless()
    return lambda: other.result(3600)


others: list[fibers.Fiber[Any]] = []


def endless() -> fibers.Fiber[Any]:
    others.append(fibers.spawn(fibers.sleep, FOREVER))
    return others[-1]


@pytest.fixture(autouse=True)
def _end_the_others() -> Iterator[None]:
    yield
    while others:
        other = others.pop()
        other.cancel()
        other.join()


CALLS = [recv, recv_with_timeout, recv_into, recv_all, recvmsg, sendall, send, wait_readable, park, join, result]
calls = pytest.mark.parametrize("prepare", CALLS, ids=lambda call: call.__name__)


@calls
def test_it_surfaces_as_the_timeout_of_the_call_once(pair: Pair, prepare: Callable[[Pair], Call]) -> None:
    call = prepare(pair)
    with fibers.move_on_after(0.005) as scope:
        with pytest.raises(TimeoutError):
            call()
        assert scope.cancel_called
        for _ in range(3):
            with pytest.raises(fibers.Cancelled):
                call()
        with pytest.raises(fibers.Cancelled):
            fibers.sleep(1)
        call()
        pytest.fail("not reached")
    assert scope.cancelled_caught


@calls
def test_bare_it_is_the_scopes(pair: Pair, prepare: Callable[[Pair], Call]) -> None:
    call = prepare(pair)
    with fibers.move_on_after(0.005) as scope:
        call()
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError, match=r"not done within 0\.005 seconds") as caught:
        with fibers.timeout(0.005):
            call()
    assert isinstance(caught.value.__cause__, TimeoutError)


@calls
def test_cancel_is_never_a_timeout(pair: Pair, prepare: Callable[[Pair], Call]) -> None:
    call = prepare(pair)
    with fibers.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(fibers.Cancelled):
            call()
    with fibers.move_on_after(60) as inner:
        with fibers.CancelScope() as scope:
            scope.cancel()
            with pytest.raises(fibers.Cancelled):
                call()
        assert not inner.cancel_called


@calls
def test_who_is_cancelled_by_hand_further_out_is_not_told_of_a_timeout(
    pair: Pair, prepare: Callable[[Pair], Call]
) -> None:
    """A driver would reconnect, or try again: the fiber is to end."""
    call = prepare(pair)
    with fibers.CancelScope() as outer:
        with fibers.timeout(0):
            outer.cancel()
            with pytest.raises(fibers.Cancelled):
                call()
            call()
        pytest.fail("the outer one catches")
    assert outer.cancelled_caught


def test_calls_without_a_timeout_raise_cancelled() -> None:
    other = endless()
    for call in (lambda: fibers.sleep(FOREVER), lowlevel.park, other.join, other.result):
        with fibers.move_on_after(0.001):
            with pytest.raises(fibers.Cancelled):
                call()


def test_accept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with fibers.move_on_after(0.005):
            with pytest.raises(TimeoutError):
                server.accept()
            with pytest.raises(fibers.Cancelled):
                server.accept()


@pytest.fixture
def full_backlog(tmp_path: Any) -> Any:
    """A unix listener that has no room for another connection."""
    path = str(tmp_path / "listener")
    clients = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(0)
        while True:
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            clients.append(client)
            if client.connect_ex(path) == errno.EAGAIN:
                break
        yield path
        for client in clients:
            client.close()


def test_connect(full_backlog: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        with fibers.move_on_after(0.005):
            with pytest.raises(TimeoutError):
                client.connect(full_backlog)
            with pytest.raises(fibers.Cancelled):
                client.connect(full_backlog)


def test_connect_ex_returns_its_errno(full_backlog: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        with fibers.move_on_after(0.005):
            assert client.connect_ex(full_backlog) == errno.EAGAIN
            with pytest.raises(fibers.Cancelled):
                client.connect_ex(full_backlog)


def test_behind_another_fiber_in_the_same_direction(pair: Pair) -> None:
    """Who queues for the turn is interrupted there, and the turn goes on."""
    holder = fibers.spawn(pair[0].recv, 1)
    fibers.yield_now()
    with fibers.move_on_after(0.005):
        with pytest.raises(TimeoutError):
            pair[0].recv(1)
        with pytest.raises(fibers.Cancelled):
            pair[0].recv(1)
    pair[1].send(b"x")
    assert holder.result(5) == b"x"


def test_each_scope_surfaces_once_also_when_they_alternate(pair: Pair) -> None:
    """After clean-up behind a shield, with a deadline of its own, the outer deadline is not told of again."""
    with fibers.move_on_after(0.002) as outer:
        with pytest.raises(TimeoutError):
            pair[0].recv(1)
        with fibers.shield():
            with fibers.move_on_after(0.002) as inner:
                with pytest.raises(TimeoutError):
                    pair[0].recv(1)
                with pytest.raises(fibers.Cancelled):
                    pair[0].recv(1)
            assert not inner.cancelled_caught
        with pytest.raises(fibers.Cancelled):
            pair[0].recv(1)
    assert not outer.cancelled_caught


def test_a_loop_that_tries_again_after_each_timeout_ends(pair: Pair) -> None:
    attempts = 0
    with fibers.move_on_after(0.002):
        while True:
            attempts += 1
            with fibers.move_on_after(0):
                try:
                    pair[0].recv(1)
                except TimeoutError:
                    continue
            if attempts > 10_000:
                pytest.fail("the outer deadline does not come through")
            fibers.yield_now()


def test_each_child_is_told_once(pair: Pair) -> None:
    told: list[str] = []

    def child(name: str) -> None:
        for _ in range(2):
            try:
                pair[0].recv(1)
            except TimeoutError:
                told.append(name)

    with fibers.move_on_after(0.005) as scope:
        with fibers.TaskGroup() as group:
            for name in "abc":
                group.spawn(child, name)
    assert sorted(told) == ["a", "b", "c"]
    assert scope.cancelled_caught


def test_a_child_that_ends_with_it_has_not_failed(pair: Pair) -> None:
    with fibers.move_on_after(0.005) as scope:
        with fibers.TaskGroup() as group:
            child = group.spawn(pair[0].recv, 1)
    assert isinstance(child.exception(), TimeoutError)
    assert scope.cancelled_caught


def test_a_childs_own_timeout_is_a_failure(pair: Pair) -> None:
    pair[0].settimeout(0.002)
    with pytest.raises(ExceptionGroup) as caught:
        with fibers.timeout(60):
            with fibers.TaskGroup() as group:
                group.spawn(pair[0].recv, 1)
    assert isinstance(caught.value.exceptions[0], TimeoutError)


def test_the_sockets_own_timeout_is_not_the_scopes(pair: Pair) -> None:
    pair[0].settimeout(0.002)
    with pytest.raises(TimeoutError, match="timed out"):
        with fibers.move_on_after(60) as scope:
            pair[0].recv(1)
    assert not scope.cancel_called


# -- what drivers make of it ----------------------------------------------------------------------------------------


def translating(pair: Pair) -> None:
    try:
        pair[0].recv(1)
    except TimeoutError as error:
        raise DriverError("no answer") from error


def translating_in_passing(pair: Pair) -> None:
    try:
        pair[0].recv(1)
    except OSError:
        raise DriverError("no answer")  # noqa: B904 - as many do


def translating_twice(pair: Pair) -> None:
    try:
        translating(pair)
    except DriverError:
        raise ConnectionError("the pool gives up") from None


def collecting(pair: Pair) -> None:
    try:
        translating(pair)
    except DriverError as error:
        raise ExceptionGroup("attempts", [error, ExceptionGroup("older", [error])]) from None


def in_a_group(pair: Pair) -> None:
    with fibers.TaskGroup() as group:
        for _ in range(2):
            group.spawn(translating, pair)


DRIVERS = [translating, translating_in_passing, collecting, in_a_group]


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_error_made_of_it_is_the_scopes(pair: Pair, driver: Callable[[Pair], None]) -> None:
    with fibers.move_on_after(0.005) as scope:
        driver(pair)
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError, match="not done within") as caught:
        with fibers.timeout(0.005):
            driver(pair)
    assert caught.value.__cause__ is not None


def test_from_none_cuts_the_trace(pair: Pair) -> None:
    """`raise … from None` says that the error has nothing to do with what came before. It hides the origin from people
    only: the context is still there, and of no use to them.
    """
    with fibers.move_on_after(0.005) as scope:
        translating_twice(pair)
    assert scope.cancelled_caught


def test_a_mistake_in_a_handler_is_not_swallowed(pair: Pair) -> None:
    with pytest.raises(KeyError, match="mistake"):
        with fibers.move_on_after(0.005) as scope:
            try:
                pair[0].recv(1)
            except TimeoutError:
                raise KeyError("mistake")  # noqa: B904 - as by a look-up that fails
    assert not scope.cancelled_caught


def test_an_error_beside_it_is_not_swallowed(pair: Pair) -> None:
    def fail() -> None:
        try:
            fibers.sleep(FOREVER)
        finally:
            raise KeyError("beside")

    with pytest.raises(ExceptionGroup) as caught:
        with fibers.timeout(0.005):
            with fibers.TaskGroup() as group:
                group.spawn(translating, pair)
                group.spawn(fail)
    assert sorted(type(error).__name__ for error in caught.value.exceptions) == ["DriverError", "KeyError"]


def test_an_error_of_an_inner_scope_is_not_the_outer_ones(pair: Pair) -> None:
    """A driver's error that comes of a deadline further in, and has been let out of there by hand."""
    kept: list[BaseException] = []
    with fibers.move_on_after(0.002):
        try:
            pair[0].recv(1)
        except TimeoutError as error:
            kept.append(error)
    with pytest.raises(TimeoutError):
        with fibers.move_on_after(0) as outer:
            raise kept[0]
    assert not outer.cancelled_caught


def test_a_circle_of_causes_is_no_trap(pair: Pair) -> None:
    first, second = DriverError("first"), DriverError("second")
    first.__cause__, second.__cause__ = second, first
    with pytest.raises(DriverError):
        with fibers.move_on_after(0) as scope:
            assert scope.cancel_called
            raise first


# -- nothing lost ---------------------------------------------------------------------------------------------------


def test_an_interrupted_sendall_tells_how_much_went_out(pair: Pair) -> None:
    near, far = pair
    size = 10_000_000
    for cut in ("deadline", "cancel", "kill"):
        with fibers.CancelScope() as scope:
            if cut == "deadline":
                scope.deadline = fibers.current_time() + 0.005
            elif cut == "cancel":
                fibers.spawn(scope.cancel)
            else:
                fibers.spawn(fibers.current().kill)
            try:
                near.sendall(bytes(size))
                pytest.fail("there is no room for that much")
            except (TimeoutError, fibers.Cancelled, fibers.FiberKilled) as error:
                sent = error.bytes_sent  # type: ignore[union-attr]
        assert 0 <= sent < size
        far.settimeout(0)
        received = 0
        with pytest.raises(BlockingIOError):
            while True:
                received += len(far.recv(1 << 20))
        assert received == sent


def test_sendall_that_was_interrupted_gives_the_turn_on(pair: Pair) -> None:
    near, far = pair
    with fibers.move_on_after(0.005):
        waiting = fibers.spawn(near.sendall, b"after")
        near.sendall(bytes(10_000_000))
    while far.recv(1 << 20)[-5:] != b"after":
        pass
    waiting.join(5)


def test_a_recv_that_has_been_served_is_not_cancelled(pair: Pair) -> None:
    """Data beats cancellation: it has been woken for data, which must not be lost."""
    near, far = pair
    scope = fibers.CancelScope()

    def read() -> bytes:
        with scope:
            return near.recv(10)
        return b""

    reader = fibers.spawn(read)
    fibers.yield_now()
    far.send(b"data")
    lowlevel.wait_readable(near.fileno())
    scheduler = get_scheduler()
    scheduler.in_runtime(scheduler.loop.turn, False)  # the reader is woken, and has not run
    scope.cancel()
    assert reader.result(5) == b"data"


def test_what_a_cancelled_recv_was_not_woken_for_stays_in_the_socket(pair: Pair) -> None:
    near, far = pair
    reader = fibers.spawn(near.recv, 10)
    fibers.yield_now()
    far.send(b"data")
    reader.cancel()
    reader.join(5)
    assert reader.cancelled()
    assert near.recv(10) == b"data"


def test_waitall_returns_what_it_has_and_the_next_call_tells(pair: Pair) -> None:
    near, far = pair
    far.send(b"12")
    with fibers.move_on_after(0.005):
        assert near.recv(10, socket.MSG_WAITALL) == b"12"
        with pytest.raises(TimeoutError):
            near.recv(10, socket.MSG_WAITALL)
        with pytest.raises(fibers.Cancelled):
            near.recv(1)


# -- a pooled connection --------------------------------------------------------------------------------------------


class Connection:
    """A request and its answer of four bytes each; what strikes in between leaves it dirty."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self.clean = True

    def exchange(self, request: bytes) -> bytes:
        assert self.clean
        self.clean = False
        self.sock.sendall(request)
        answer = b""
        while len(answer) < 4:
            answer += self.sock.recv(4 - len(answer))
        self.clean = True
        return answer


def slow_server(sock: Any, pause: float) -> None:
    while request := sock.recv(4):
        fibers.sleep(pause)
        sock.sendall(request[:2])
        fibers.sleep(pause)
        sock.sendall(request[2:])


def test_a_shield_around_the_exchange_keeps_a_pooled_connection_clean(pair: Pair) -> None:
    near, far = pair
    connection = Connection(near)
    server = fibers.spawn(slow_server, far, 0.005)
    answers = []
    for number in range(5):
        request = b"%04d" % number
        with fibers.move_on_after(0.002) as scope:
            with fibers.shield():
                answers.append(connection.exchange(request))
            fibers.yield_now()  # and here the deadline is felt
        assert scope.cancelled_caught
        assert connection.clean
    assert answers == [b"%04d" % number for number in range(5)]
    server.cancel()
    server.join()


def test_without_a_shield_the_driver_sees_a_timeout_and_can_drop_it(pair: Pair) -> None:
    near, far = pair
    connection = Connection(near)
    server = fibers.spawn(slow_server, far, 0.005)
    dropped = False
    with fibers.move_on_after(0.002):
        try:
            connection.exchange(b"0000")
        except OSError:
            dropped = True
            near.close()
            raise
    assert dropped
    assert not connection.clean
    server.cancel()
    server.join()


def test_the_grace_bounds_the_exchange(pair: Pair) -> None:
    connection = Connection(pair[0])
    with fibers.CancelScope() as scope:
        scope.cancel(grace=0.005)
        with fibers.shield():
            connection.exchange(b"0000")  # nobody answers
    assert scope.cancelled_caught
    assert not connection.clean


def test_a_scope_costs_a_recv_no_timer(pair: Pair) -> None:
    """A deadline is inherited by each call at no cost: the calls make no timers of their own."""
    near, far = pair
    loop: Any = fibers.current().scheduler.loop  # type: ignore[attr-defined]
    scheduled = 0
    schedule = loop.schedule

    def counting(deadline: float, target: Any) -> Any:
        nonlocal scheduled
        scheduled += 1
        return schedule(deadline, target)

    def echo() -> None:
        for _ in range(50):
            far.sendall(far.recv(1))

    answering = fibers.spawn(echo)
    loop.schedule = counting
    try:
        with fibers.timeout(60):
            for _ in range(50):
                near.sendall(b"x")
                near.recv(1)
    finally:
        loop.schedule = schedule
    answering.join()
    assert scheduled <= 1


def test_files_behind_a_pipe_in_a_thread_are_not_interrupted() -> None:
    """What runs in a worker thread runs to its end; the fiber stops waiting."""
    there, here = os.pipe()
    try:
        with fibers.move_on_after(0.005) as scope:
            to_thread(os.read, there, 1, cancellable=True)
        assert scope.cancelled_caught
        os.write(here, b"x")
        to_thread(int)
    finally:
        os.close(here)
        os.close(there)
