"""Row "EINTR": a storm of SIGUSR1 during recv and during sleep loses no event, breaks no retry, ends no wait early."""

from textwrap import dedent

from support.process import run_python
from support.scale import scaled

STORM = dedent(
    """
    import os, random, signal, threading, time
    import fibers
    from fibers.io import socket

    handled = 0

    def handler(number, frame):
        global handled
        handled += 1

    signal.signal(signal.SIGUSR1, handler)
    over = threading.Event()
    rounds = {rounds}

    def storm():
        rng = random.Random({seed})
        while not over.is_set():
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(rng.random() * 0.0005)

    a, b = socket.socketpair()
    thread = threading.Thread(target=storm)
    thread.start()

    def echo():
        while data := b.recv(100):
            fibers.sleep(0.0001)
            b.sendall(data)

    def sleeps():
        for _ in range(rounds // 4):
            started = time.monotonic()
            fibers.sleep(0.003)
            assert time.monotonic() - started >= 0.003

    def timeouts():
        c, d = socket.socketpair()
        with c, d:
            c.settimeout(0.004)
            for _ in range(rounds // 4):
                started = time.monotonic()
                try:
                    c.recv(1)
                except TimeoutError:
                    assert time.monotonic() - started >= 0.004
                else:
                    raise AssertionError("data from nowhere")

    echoer, sleeper, timer = fibers.spawn(echo), fibers.spawn(sleeps), fibers.spawn(timeouts)
    for number in range(rounds):
        message = b"%d" % number
        a.sendall(message)
        assert a.recv(100) == message
    sleeper.result(60)
    timer.result(60)
    over.set()
    thread.join()
    a.close()
    echoer.result(5)
    b.close()
    print("handled", handled)
    """
)


def test_eintr_storm_during_recv_sleep_and_timeouts() -> None:
    done = run_python("-c", STORM.format(rounds=scaled(8000, least=200), seed=1), timeout=110)
    assert done.stderr == ""
    assert done.returncode == 0
    words = done.stdout.split()
    assert words[0] == "handled"
    assert int(words[1]) > 20
