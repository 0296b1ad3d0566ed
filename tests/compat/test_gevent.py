"""fibers.compat.gevent: what gevent's documentation promises, where it differs from what fibers does by itself."""

import io
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.process import run_python

import fibers
from fibers.compat import gevent
from fibers.compat.gevent import event, local, lock, monkey, pool, pywsgi, queue, server, socket, threadpool
from fibers.core.scheduler import get_scheduler
from fibers.io import socket as fiber_socket

NOTHING: Any = "nothing of use"


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the hub is told of."""
    found: list[Any] = []
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *args: found.append(args), raising=False)
    return found


# -- greenlets


def test_a_value_and_an_error_are_kept(errors: list[Any]) -> None:
    good, bad = gevent.spawn(int, "7"), gevent.spawn(int, "x")
    assert gevent.joinall([good, bad]) in ([good, bad], [bad, good])
    assert (good.value, good.successful(), good.exc_info) == (7, True, ())
    assert not bad.successful()
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            bad.get()
    assert [each[0] for each in errors] == [bad]


def test_killed_is_a_value_and_not_an_error(errors: list[Any]) -> None:
    greenlet = gevent.spawn(gevent.sleep, 60)
    gevent.sleep(0)
    greenlet.kill()
    assert greenlet.dead
    assert greenlet.successful()
    assert isinstance(greenlet.get(), gevent.GreenletExit)
    assert errors == []


def test_killed_before_its_time_it_never_runs() -> None:
    ran: list[int] = []
    for start in (lambda g: None, lambda g: g.start(), lambda g: g.start_later(60)):
        greenlet = gevent.Greenlet(ran.append, 1)
        told: list[Any] = []
        greenlet.link(told.append)
        start(greenlet)
        greenlet.kill()
        assert greenlet.ready()
        greenlet.start()
        gevent.idle()
        assert told == [greenlet]
    assert ran == []


def test_who_waits_before_it_is_started_is_told() -> None:
    never, later = gevent.Greenlet(int), gevent.Greenlet(lambda: 5)
    waiting = [gevent.spawn(never.join), gevent.spawn(later.get)]
    gevent.sleep(0)
    never.kill()
    later.start()
    gevent.joinall(waiting, raise_error=True)
    assert waiting[1].value == 5


def test_it_kills_itself_here_and_now() -> None:
    behind: list[int] = []

    def suicide() -> None:
        gevent.getcurrent().kill()
        behind.append(1)

    greenlet = gevent.spawn(suicide)
    greenlet.join()
    assert isinstance(greenlet.value, gevent.GreenletExit)
    assert behind == []


def test_links_say_what_came_of_it(errors: list[Any]) -> None:
    values, failures = queue.Queue[Any](), queue.Queue[Any]()
    good, bad = gevent.spawn(lambda: 1), gevent.spawn(lambda: 1 / 0)
    for greenlet in (good, bad):
        greenlet.link_value(values.put)
        greenlet.link_exception(failures.put)
    result = event.AsyncResult()
    bad.link(result)
    assert values.get(timeout=5) is good
    assert failures.get(timeout=5) is bad
    with pytest.raises(ZeroDivisionError):
        result.get(timeout=5)


def test_a_subclass_runs_its_own_method() -> None:
    class Doubling(gevent.Greenlet):
        def __init__(self, n: int) -> None:
            super().__init__()
            self.n = n

        def _run(self) -> int:
            return 2 * self.n

    assert Doubling.spawn(21).get() == 42


def test_system_exit_in_a_greenlet_ends_the_program() -> None:
    done = run_python(
        "-c",
        "import sys\nfrom fibers.compat import gevent\ngevent.spawn(sys.exit, 3)\ngevent.sleep(60)",
    )
    assert done.returncode == 3, done.stderr


def test_who_has_spawned_is_in_the_dump() -> None:
    greenlet = gevent.spawn(gevent.sleep, 60)
    gevent.sleep(0)
    text = io.StringIO()
    fibers.dump(text)
    greenlet.kill()
    assert "test_gevent.py" in text.getvalue()


# -- timeouts


def test_a_timeout_strikes_once_and_may_be_caught_inside() -> None:
    with gevent.Timeout(0.001) as timeout:
        with pytest.raises(gevent.Timeout) as caught:
            gevent.sleep(60)
        gevent.sleep(0.001)  # level-triggered scopes would raise again
    assert caught.value is timeout


def test_a_silent_timeout_ends_its_block_alone() -> None:
    with gevent.Timeout(60), gevent.Timeout(0.001, False):
        gevent.sleep(60)
        pytest.fail("the block goes on")
    with pytest.raises(KeyError), gevent.Timeout(0.001, KeyError):
        gevent.sleep(60)


def test_a_timeout_that_came_too_late_is_taken_back() -> None:
    came = event.Event()
    timeout = gevent.Timeout(60)
    with timeout:
        gevent.spawn(came.set)
        strike: Any = timeout._strike
        gevent.spawn(lambda: get_scheduler().in_runtime(strike.expire, strike._timer))
        assert came.wait()  # woken first, and struck before it runs
    gevent.sleep(0.001)


def test_get_takes_seconds_or_a_timeout() -> None:
    sleeping = gevent.spawn(gevent.sleep, 60)
    for wait in (event.AsyncResult().get, sleeping.get):
        _check_timeouts(wait)
    sleeping.kill()


def _check_timeouts(wait: Callable[..., Any]) -> None:
    with pytest.raises(gevent.Timeout, match=r"0\.001 seconds"):
        wait(timeout=0.001)
    mine = gevent.Timeout(0.001)
    with pytest.raises(gevent.Timeout) as caught:
        wait(timeout=mine)
    assert caught.value is mine
    assert not mine.pending


def test_with_timeout() -> None:
    assert gevent.with_timeout(0.001, gevent.sleep, 60, timeout_value="late") == "late"
    assert gevent.with_timeout(60, lambda: "done", timeout_value="late") == "done"


# -- pools, queues, locks


def test_a_pool_bounds_and_maps_in_order() -> None:
    running: list[int] = []
    most = 0

    def work(n: int) -> int:
        nonlocal most
        running.append(n)
        most = max(most, len(running))
        gevent.sleep(0.001 * (n % 3))
        running.remove(n)
        return n

    few = pool.Pool(3)
    assert few.map(work, range(20)) == list(range(20))
    assert sorted(few.imap_unordered(work, range(20))) == list(range(20))
    assert most == 3
    few.join()
    assert few.free_count() == 3


def test_a_full_pool_refuses_who_will_not_wait() -> None:
    one = pool.Pool(1)
    one.spawn(gevent.sleep, 60)
    with pytest.raises(pool.PoolFull):
        one.add(gevent.Greenlet(), blocking=False)
    assert one.wait_available(timeout=0.001) == 0
    one.kill()
    assert len(one) == 0


def test_queues_are_peeked_and_iterated() -> None:
    mine = queue.Queue[Any](items=[1, 2])
    other = queue.Queue[Any]()
    peeking = gevent.spawn(other.peek)
    gevent.sleep(0)
    other.put("x")
    assert peeking.get() == "x"
    assert other.get_nowait() == "x"
    assert mine.peek() == 1
    mine.put(StopIteration)
    assert list(mine) == [1, 2]
    with pytest.raises(queue.Empty):
        mine.peek_nowait()


def test_a_peek_does_not_let_a_full_queue_overflow() -> None:
    mine = queue.Queue[Any](1)
    peeking = gevent.spawn(mine.peek)
    gevent.sleep(0)
    mine.put(1)
    second = gevent.spawn(mine.put, 2)
    assert peeking.get() == 1
    gevent.sleep(0)
    assert (mine.qsize(), second.ready()) == (1, False)
    assert [mine.get(), mine.get()] == [1, 2]
    second.get()


def test_a_channel_meets() -> None:
    channel = queue.Channel()
    with pytest.raises(queue.Full):
        channel.put_nowait(1)
    with pytest.raises(queue.Empty):
        channel.get(timeout=0.001)
    putting = gevent.spawn(channel.put, 1)
    assert channel.get() == 1
    putting.get()


def test_iwait_tells_of_what_is_ready_first() -> None:
    flag, result, permits = event.Event(), event.AsyncResult(), lock.Semaphore(0)
    with gevent.iwait([flag, result, permits], timeout=60) as ready:
        permits.release()
        assert next(ready) is permits
        flag.set()
        assert next(ready) is flag
    assert result.linkcount() == 0
    assert gevent.wait([result], timeout=0.001) == []


def test_locals_are_of_the_fiber() -> None:
    mine = local.local()
    mine.x = 1
    assert gevent.spawn(lambda: hasattr(mine, "x")).get() is False
    assert mine.x == 1


def test_results_cross_threads() -> None:
    result = event.AsyncResult()
    thread = threading.Thread(target=lambda: result.set(gevent.spawn(lambda: 6).get()))
    thread.start()
    assert result.get(timeout=60) == 6
    thread.join()


def test_links_outlive_the_thread_that_makes_ready() -> None:
    for _ in range(20):
        result, flag = event.AsyncResult(), event.Event()
        threads = [threading.Thread(target=result.set, args=(1,)), threading.Thread(target=flag.set)]
        for thread in threads:
            thread.start()
        assert len(gevent.wait([result, flag], timeout=60)) == 2
        for thread in threads:
            thread.join()


def test_a_timeout_strikes_the_child_of_a_fork_as_well() -> None:
    done = run_python(
        "-c",
        "import os\nfrom fibers.compat import gevent\n"
        "with gevent.Timeout(60), gevent.Timeout(0.05, False):\n"
        "    pid = os.fork()\n"
        "    if pid: print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "    gevent.sleep(60)\n"
        "if not pid: os._exit(7)\n",
    )
    assert done.stdout == "7\n", done.stderr


# -- the outside


def test_a_thread_pool_calls_in_threads() -> None:
    threads = threadpool.ThreadPool(2)
    main = threading.get_ident()
    assert threads.spawn(threading.get_ident).get() != main
    assert threads.map(abs, [-1, -2]) == [1, 2]
    assert gevent.get_hub().threadpool.apply(divmod, (7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        threads.apply(divmod, (1, 0))
    threads.join()


def test_a_server_in_a_pool_serves_and_stops() -> None:
    def echo(sock: Any, address: Any) -> None:
        while data := sock.recv(100):
            sock.sendall(data)

    with server.StreamServer(("127.0.0.1", 0), echo, spawn=pool.Pool(2)) as mine:
        assert mine.server_port
        with fiber_socket.create_connection(mine.address) as sock:
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"
            assert len(mine.pool) == 1  # type: ignore[arg-type]
    assert mine.closed


def test_wsgi() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "3")])
        return [environ["who"].encode()]

    with pywsgi.WSGIServer("127.0.0.1:0", application, log=None, environ={"who": "you"}) as mine:
        with fiber_socket.create_connection(mine.address) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: sock.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nyou")


def test_drivers_wait_for_their_files() -> None:
    here, there = fiber_socket.socketpair()
    with here, there:
        with pytest.raises(TimeoutError):
            socket.wait_read(here.fileno(), timeout=0.001)
        gevent.spawn(there.send, b"x")
        socket.wait_read(here.fileno(), timeout=60)
        socket.wait_write(here.fileno())


def test_a_logger_is_a_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "wsgi"):
        pywsgi.LoggingLogAdapter(logging.getLogger("wsgi")).write("a line\n")
    assert caplog.messages == ["a line"]


def test_originals() -> None:
    import time

    assert monkey.get_original("time", "sleep") is time.sleep
    assert not monkey.is_anything_patched()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: gevent.spawn(1), TypeError),
        (lambda: gevent.spawn_raw(NOTHING), TypeError),
        (lambda: gevent.spawn(int).rawlink(NOTHING), TypeError),
        (lambda: gevent.Timeout(0.1, "text").start_new(NOTHING), TypeError),
        (lambda: pool.Pool(-1), ValueError),
        (lambda: lock.Semaphore(-1), ValueError),
        (lambda: server.StreamServer("nowhere", print), ValueError),
        (lambda: server.StreamServer(("127.0.0.1", 0), print, spawn="some"), TypeError),
        (lambda: server.StreamServer(("127.0.0.1", 0), print, kefile="x"), TypeError),
        (lambda: pywsgi.WSGIServer(("127.0.0.1", 0), print, handler_class=int), TypeError),
        (lambda: monkey.get_original("time", "slumber"), AttributeError),
    ],
)
def test_bad_input(call: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        call()


def test_import_gevent_can_mean_ours(tmp_path: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nimport gevent\nimport gevent.pool\nfrom gevent import monkey\nfrom gevent.event import Event\n"
        "import time\nassert monkey.patch_all()\nassert gevent.monkey.is_module_patched('time')\n"
        "g = gevent.spawn(time.sleep, 0)\nEvent().wait(0.001)\nprint(gevent.__name__, g.ready(), sys.argv[1:])\n"
    )
    done = run_python("-m", "fibers.compat.gevent", str(script), "x")
    assert done.stdout == "fibers.compat.gevent True ['x']\n", done.stderr
