"""Row "races": close, readiness, timeout and kill meet on one fd, from three threads; each waiter is resumed exactly once.

Who is resumed twice would come out of its *next* wait too early. So each fiber, when its recv is over, waits once more
in a bare wait that shows why it ended: only its own timer may end that.
"""

import errno
import random
import sys
import threading
from collections import Counter

from support.scale import SEED, scaled

import fibers
from fibers.core.scheduler import SLEEPING, get_scheduler
from fibers.eventloop import TIMED_OUT
from fibers.io import socket

BATCH = 50


def bare_wait(seconds: float) -> object:
    """One wait, without the loop that real primitives put around it; its outcome."""
    scheduler = get_scheduler()
    me = scheduler.current
    assert me is not None
    return scheduler.park(me, SLEEPING, scheduler.loop.clock() + seconds)


def test_races_each_waiter_is_resumed_exactly_once() -> None:
    rng = random.Random(SEED)
    seen: Counter[str] = Counter()
    double: list[object] = []
    resumed = 0

    def read(sock: socket.socket) -> None:
        nonlocal resumed
        try:
            try:
                data = sock.recv(1)
                seen["data" if data else "end"] += 1
            except TimeoutError:
                seen["timeout"] += 1
            except fibers.ClosedError:
                seen["closed"] += 1
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise
                seen["closed"] += 1
            resumed += 1
            try:
                outcome = bare_wait(0.0005)
                if outcome is not TIMED_OUT:
                    double.append(outcome)
            except LookupError:
                seen["killed afterwards"] += 1
        except LookupError:
            seen["killed"] += 1
            resumed += 1
            outcome = bare_wait(0.0005)
            if outcome is not TIMED_OUT:
                double.append(outcome)

    batches = scaled(1_000_000 // BATCH, least=40)
    start, finish = threading.Barrier(3, timeout=60), threading.Barrier(3, timeout=60)
    work: list[tuple[socket.socket, socket.socket, fibers.Fiber[None]]] = []
    over = False

    def close_some() -> None:
        rng = random.Random(SEED + 1)
        while True:
            start.wait()
            if over:
                return
            for a, _b, _fiber in rng.sample(work, len(work)):
                if rng.random() < 0.6:
                    a.close()
            finish.wait()

    def send_and_kill() -> None:
        rng = random.Random(SEED + 2)
        while True:
            start.wait()
            if over:
                return
            for _a, b, fiber in rng.sample(work, len(work)):
                chance = rng.random()
                if chance < 0.5:
                    try:
                        b.send(b"xx", socket.MSG_DONTWAIT)
                    except BrokenPipeError:
                        seen["too late"] += 1
                if 0.3 < chance < 0.8:
                    fiber.kill(LookupError())
            finish.wait()

    threads = [threading.Thread(target=close_some), threading.Thread(target=send_and_kill)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)  # three threads that compute: let them meet more often
    for thread in threads:
        thread.start()
    for _ in range(batches):
        work.clear()
        for _ in range(BATCH):
            a, b = socket.socketpair()
            a.settimeout(rng.choice((None, 0.0001, 0.001, 0.003)))
            work.append((a, b, fibers.spawn(read, a)))
        if rng.random() < 0.5:
            fibers.yield_now()  # else nobody has started when it begins
        start.wait()
        for _ in range(rng.randrange(4)):
            fibers.yield_now()
        for a, _b, _fiber in work:
            if rng.random() < 0.3:
                a.close()
        finish.wait()
        for a, b, fiber in work:
            a.close()  # wakes who is left
            assert isinstance(fiber.exception(20), fibers.FiberCancelled | LookupError | None)
            b.close()
    over = True
    start.wait()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    never_started = batches * BATCH - resumed
    assert double == []
    assert 0 <= never_started < batches * BATCH
    assert set(seen) >= {"data", "timeout", "closed", "killed"}
