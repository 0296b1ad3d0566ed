"""Row "lost wake": what other threads post or wake is never lost between "nothing is ready" and the kernel wait."""

import random
import threading
import time
from typing import Any

import pytest
from support.scale import SEED, scaled

import fibers
from fibers import lowlevel
from fibers.core.scheduler import get_scheduler
from fibers.io import socket
from fibers.threads.to_thread import to_thread

DELAYS = (None, 0.0, 0.000_01, 0.000_05)


def pause(rng: random.Random) -> None:
    """Nothing, giving the processor away, or a short sleep: where the race falls is random, not what is right."""
    seconds = rng.choice(DELAYS)
    if seconds is not None:
        time.sleep(seconds)


def test_lost_wake_cross_thread_unparks(capsys: pytest.CaptureFixture[str]) -> None:
    """10^6 (scaled) wake-ups with random delays, none lost; the distribution of their latencies is printed."""
    rounds = scaled(1_000_000, least=5_000)
    me = fibers.current()
    latencies: list[float] = []
    sent = [0.0]
    turn = threading.Semaphore(0)

    def waker() -> None:
        rng = random.Random(SEED)
        for _ in range(rounds):
            turn.acquire()
            pause(rng)
            sent[0] = time.perf_counter()
            lowlevel.unpark(me)

    thread = threading.Thread(target=waker)
    thread.start()
    for _ in range(rounds):
        turn.release()
        lowlevel.park(30)  # a lost wake is a TimeoutError here
        latencies.append(time.perf_counter() - sent[0])
    thread.join()
    latencies.sort()
    with capsys.disabled():
        print(
            f"\n{rounds} cross-thread wake-ups: median {latencies[rounds // 2] * 1e6:.0f} µs, "
            f"p99 {latencies[int(rounds * 0.99)] * 1e6:.0f} µs, p99.9 {latencies[int(rounds * 0.999)] * 1e6:.0f} µs"
        )


def test_lost_wake_posts_from_three_threads() -> None:
    """Every post is run, once, in the order of its thread, while the loop goes to sleep again and again."""
    rounds = scaled(300_000, least=3_000)
    loop: Any = get_scheduler().loop
    me = fibers.current()
    seen: list[tuple[int, int]] = []

    def got(thread: int, number: int) -> None:
        seen.append((thread, number))
        if number == rounds - 1:
            lowlevel.unpark(me)

    def post(thread: int) -> None:
        rng = random.Random(SEED + thread)
        for number in range(rounds):
            if rng.random() < 0.02:
                pause(rng)
            loop.post(got, thread, number)

    threads = [threading.Thread(target=post, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    while len(seen) < 3 * rounds:
        lowlevel.park(30)
    for thread in threads:
        thread.join()
    assert len(seen) == 3 * rounds
    for number in range(3):
        assert [each for thread, each in seen if thread == number] == list(range(rounds))


def test_lost_wake_joins_across_threads() -> None:
    """A fiber of another thread is joined at the moment at which it ends."""
    rng = random.Random(SEED)
    box: list[fibers.Fiber[int]] = []
    asked, given, over = threading.Semaphore(0), threading.Semaphore(0), threading.Event()

    def other() -> None:
        while True:
            to_thread(asked.acquire)
            if over.is_set():
                return
            box.append(fibers.spawn(int, 7))
            given.release()
            fibers.sleep(0)

    thread = threading.Thread(target=fibers.run, args=(other,))
    thread.start()
    for _ in range(scaled(20_000, least=300)):
        asked.release()
        given.acquire()
        pause(rng)
        assert box.pop().result(30) == 7
    over.set()
    asked.release()
    thread.join()


def test_lost_wake_edges_while_the_loop_falls_asleep() -> None:
    """The kernel's side of the same race: a byte from a plain thread for each byte read."""
    rounds = scaled(200_000, least=3_000)
    a, b = socket.socketpair()
    rng = random.Random(SEED)
    turn = threading.Semaphore(0)

    def send() -> None:
        for _ in range(rounds):
            turn.acquire()
            pause(rng)
            b.send(b"x", socket.MSG_DONTWAIT)

    thread = threading.Thread(target=send)
    with a, b:
        a.settimeout(30)
        thread.start()
        for _ in range(rounds):
            turn.release()
            assert a.recv(10) == b"x"
        thread.join()
