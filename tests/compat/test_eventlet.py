"""fibers.compat.eventlet: what eventlet's documentation promises."""

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from greenlet import GreenletExit

from fibers.compat import eventlet
from fibers.compat.eventlet import event, greenpool, pools, queue, semaphore, tpool
from fibers.io import socket


def test_a_green_thread_is_waited_for() -> None:
    assert eventlet.spawn(divmod, 7, 2).wait() == (3, 1)
    failing = eventlet.spawn(lambda: int("x"))
    with pytest.raises(ValueError, match="invalid literal"):
        failing.wait()


def test_what_was_killed_is_an_error_to_who_waits() -> None:
    greenthread = eventlet.spawn(eventlet.sleep, 60)
    eventlet.sleep(0)
    greenthread.kill()
    with pytest.raises(GreenletExit):
        greenthread.wait()
    other = eventlet.spawn(eventlet.sleep, 60)
    eventlet.sleep(0)
    other.kill(KeyError, "why")
    with pytest.raises(KeyError, match="why"):
        other.wait()


def test_cancel_is_for_what_has_not_begun() -> None:
    ran: list[int] = []
    later = eventlet.spawn_after(60, ran.append, 1)
    later.cancel()
    assert later.dead
    begun = eventlet.spawn(eventlet.sleep, 0.001)
    eventlet.sleep(0)
    begun.cancel()
    begun.wait()
    assert ran == []


def test_links_have_arguments_and_are_called_at_once() -> None:
    told: list[Any] = []
    greenthread = eventlet.spawn(lambda: 1)
    greenthread.link(lambda gt, *args, **kwargs: told.append((gt, args, kwargs)), 2, x=3)
    assert greenthread.unlink(print) is False
    greenthread.wait()
    assert told == [(greenthread, (2,), {"x": 3})]


def test_spawn_after_local_dies_with_its_spawner() -> None:
    ran: list[int] = []
    eventlet.spawn(lambda: eventlet.spawn_after_local(0, ran.append, 1)).wait().wait()
    assert ran == []


def test_a_timeout_counts_from_the_moment_it_is_made() -> None:
    timeout = eventlet.Timeout(0.001)
    with pytest.raises(eventlet.Timeout) as caught:
        eventlet.sleep(60)
    assert caught.value is timeout
    with eventlet.Timeout(0.001, False):
        eventlet.sleep(60)
    cancelled = eventlet.Timeout(0.001)
    cancelled.cancel()
    eventlet.sleep(0.002)
    assert eventlet.with_timeout(0.001, eventlet.sleep, 60, timeout_value=5) == 5
    assert eventlet.is_timeout(TimeoutError())


def test_an_exception_can_be_ordered() -> None:
    eventlet.exc_after(60, KeyError).cancel()
    eventlet.exc_after(0.001, KeyError, "now")
    with pytest.raises(KeyError, match="now"):
        eventlet.sleep(60)


def test_an_event_is_sent_once() -> None:
    sent = event.Event()
    waiting = eventlet.spawn(sent.wait)
    eventlet.sleep(0)
    sent.send("x")
    assert waiting.wait() == sent.poll() == "x"
    with pytest.raises(AssertionError, match="re-send"):
        sent.send("y")
    sent.reset()
    assert sent.wait(timeout=0.001) is None
    sent.send_exception(KeyError, "z")
    with pytest.raises(KeyError, match="z"):
        sent.wait()


def test_a_green_pool_bounds_and_keeps_order() -> None:
    pool = eventlet.GreenPool(2)
    most: list[int] = []

    def work(n: int) -> int:
        most.append(pool.running())
        eventlet.sleep(0.001 * (n % 2))
        return n

    assert list(pool.imap(work, range(10))) == list(range(10))
    assert max(most) == 2
    pool.spawn_n(work, 1)
    pool.waitall()
    assert (pool.running(), pool.free()) == (0, 2)


def test_a_pool_that_is_full_of_its_spawner_runs_inline() -> None:
    pool = eventlet.GreenPool(1)
    assert pool.spawn(lambda: pool.spawn(lambda: 4).wait()).wait() == 4


def test_a_pool_can_be_resized() -> None:
    pool = eventlet.GreenPool(2)
    greenthreads = [pool.spawn(eventlet.sleep, 60) for _ in range(2)]
    eventlet.sleep(0)
    pool.resize(1)
    assert pool.free() == -1
    greenthreads[0].kill()
    assert pool.free() == 0
    pool.resize(3)
    assert pool.free() == 2
    greenthreads[1].kill()
    assert pool.free() == 3


def test_a_pile_gives_errors_in_their_places() -> None:
    pile = eventlet.GreenPile(3)
    for divisor in (1, 0, 2):
        pile.spawn(divmod, 4, divisor)
    assert next(pile) == (4, 0)
    with pytest.raises(ZeroDivisionError):
        next(pile)
    assert list(pile) == [(2, 0)]
    with pytest.raises(ValueError, match="invalid literal"):
        list(greenpool.GreenPool(2).imap(int, ["1", "x"]))


def test_semaphores_tell_their_balance() -> None:
    permits = semaphore.Semaphore(1)
    permits.acquire()
    waiting = eventlet.spawn(permits.acquire)
    eventlet.sleep(0)
    assert permits.balance == -1
    permits.release()
    assert waiting.wait() is True
    capped = semaphore.CappedSemaphore(1, 2)
    assert capped.release(blocking=False)
    assert not capped.release(blocking=False)
    assert capped.acquire()
    assert not capped.bounded()


def test_things_are_pooled() -> None:
    made: list[int] = []
    pool = pools.Pool(max_size=1, create=lambda: made.append(1) or len(made))  # type: ignore[func-returns-value]
    with pool.item() as item:
        assert item == 1
        waiting = eventlet.spawn(pool.get)
        eventlet.sleep(0)
        assert (pool.free(), pool.waiting()) == (0, 1)
    assert waiting.wait() == 1
    assert made == [1]


def test_native_threads() -> None:
    assert tpool.execute(threading.get_ident) != threading.get_ident()
    proxy = tpool.Proxy([1, 2])
    proxy.append(3)
    assert (list(proxy), len(proxy), proxy[0]) == ([1, 2, 3], 3, 1)


def test_serve_stops_when_a_handler_says_so() -> None:
    with eventlet.listen(("127.0.0.1", 0)) as listener:

        def handle(sock: Any, address: Any) -> None:
            if sock.recv(10) == b"stop":
                raise eventlet.StopServe

        serving = eventlet.spawn(eventlet.serve, listener, handle)
        with eventlet.connect(listener.getsockname()) as sock:
            sock.sendall(b"stop")
            serving.wait()


def test_wsgi_and_a_module_on_our_sockets() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"hello"]

    before = {name: sys.modules.get(name) for name in ("http.client", "urllib.request", "socket")}
    request = eventlet.import_patched("urllib.request")
    assert request.socket is socket
    assert request.http.client.socket is socket
    assert {name: sys.modules.get(name) for name in before} == before
    listener = eventlet.listen(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    serving = eventlet.spawn(eventlet.wsgi.server, listener, application, log_output=False)
    assert request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).read() == b"hello"
    serving.kill()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: eventlet.GreenPool(True), TypeError),
        (lambda: eventlet.GreenPool(-1), ValueError),
        (lambda: queue.Queue(0), ValueError),
        (lambda: eventlet.monkey_patch(sockets=True), TypeError),
        (lambda: semaphore.CappedSemaphore(2, 1), ValueError),
        (lambda: eventlet.wsgi.server(None, print, url_length_limit=1), TypeError),
        (lambda: eventlet.hubs.trampoline(0), ValueError),
        (lambda: pools.Pool(min_size=2, max_size=1), ValueError),
    ],
)
def test_bad_input(call: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        call()
