"""Signals: a handler runs at once although the loop is asleep, whoever took the signal; and one that raises loses nothing.

Facts. A signal may be taken by any thread, and does not end the kernel wait of the main one by itself: its handler ran
0.9 s late, or, with no timeout, never (hazards 3 and 13). A handler that raises may strike between the kernel wait and
the end of dispatch: of what had come, nothing may be lost (hazard 1).
"""

from support.loops import Kind
from support.scenarios import printed
from support.waiting import Waiter

from fibers.eventloop import EventLoop

ASLEEP = """
class Boom(BaseException):
    pass

def strike(loop, thread, before=lambda: None):
    def run():
        while not loop.asleep:
            time.sleep(0)
        before()
        signal.pthread_kill(thread, signal.SIGUSR1)
    striker = threading.Thread(target=run, daemon=True)
    striker.start()
    return striker

def scenario(kind):
    signal.set_wakeup_fd(-1)
    # taken by another thread
    got = []
    signal.signal(signal.SIGUSR1, lambda *args: got.append(1))
    over = threading.Event()
    elsewhere = threading.Thread(target=over.wait)
    elsewhere.start()
    loop = kind()
    striker = strike(loop, elsewhere.ident)
    loop.turn(True)
    striker.join(), over.set(), elsewhere.join()
    print("handled", got)

    # an earlier wakeup fd gets its bytes, and is put back
    loop.close()
    mine, far = std.socketpair()
    mine.setblocking(False), far.setblocking(False)
    signal.set_wakeup_fd(mine.fileno())
    loop = kind()
    striker = strike(loop, threading.get_ident())
    loop.turn(True)
    striker.join()
    print("passed on", far.recv(10) == bytes([signal.SIGUSR1]))
    first, second = loop, kind()
    first.close()  # not in the order of making
    striker = strike(second, threading.get_ident())
    second.turn(True)
    striker.join()
    print("passed on", far.recv(10) == bytes([signal.SIGUSR1]))
    second.close()
    print("put back", signal.set_wakeup_fd(-1) == mine.fileno())
    mine.close(), far.close()

    # a handler that raises, with an event on its way, again and again
    def boom(*args):
        raise Boom
    signal.signal(signal.SIGUSR1, boom)
    loop = kind()
    a, b = std.socketpair()
    a.setblocking(False)
    handle = loop.handle(a.fileno(), True)
    caught = 0
    woken = []
    for _ in range(50):
        waiter = wait(loop, handle.reading)
        striker = strike(loop, threading.get_ident(), lambda: b.send(b"x"))
        struck = False
        while True:
            try:
                while not (struck and loop.ready):
                    loop.turn(not loop.ready)
                break
            except Boom:
                struck = True
                caught += 1
        striker.join()
        woken.append(list(loop.ready) == [waiter])
        loop.ready.clear()
        a.recv(1)
    print("raised", caught, "woken", woken.count(True))
    loop.release(handle, a.close)
    b.close()
    loop.close()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
"""

WITH_FIBERS = """
def scenario(kind):
    def main():
        a, b = socket.socketpair()
        with a, b:
            seen = []
            def handler(*args):
                seen.append(1)
                b.send(b"from the handler", socket.MSG_DONTWAIT)
            signal.signal(signal.SIGUSR1, handler)
            loop = get_scheduler().loop
            def strike():
                while not loop.asleep:
                    time.sleep(0)
                os.kill(os.getpid(), signal.SIGUSR1)
            striker = threading.Thread(target=strike)
            striker.start()
            print(a.recv(100), seen)
            striker.join()

            # a storm: nothing is lost, no wait ends early
            signal.signal(signal.SIGUSR1, lambda *args: seen.append(1))
            over = threading.Event()
            def storm():
                while not over.wait(0.0003):
                    os.kill(os.getpid(), signal.SIGUSR1)
            stormer = threading.Thread(target=storm)
            stormer.start()
            def echo():
                while data := b.recv(100):
                    b.sendall(data)
            def sleeps():
                for _ in range(5):
                    started = time.monotonic()
                    fibers.sleep(0.003)
                    assert time.monotonic() - started >= 0.003
            echoer, sleeper = fibers.spawn(echo), fibers.spawn(sleeps)
            for number in range(30):
                message = b"%d" % number
                a.sendall(message)
                assert a.recv(100) == message
            sleeper.result(20)
            over.set()
            to_thread(stormer.join)
            a.close()
            echoer.result(5)
            print("through the storm", len(seen) > 3)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    fibers.run(main, loop=kind())
"""


def test_hazard_13_a_signal_taken_by_another_thread_ends_the_sleep(loop_factory: Kind) -> None:
    assert printed(ASLEEP, loop_factory)[0] == "handled [1]"


def test_an_earlier_wakeup_fd_gets_its_bytes_and_is_put_back(loop_factory: Kind) -> None:
    """Also where loops are closed in another order than they were made."""
    assert printed(ASLEEP, loop_factory)[1:4] == ["passed on True", "passed on True", "put back True"]


def test_hazard_1_a_handler_that_raises_loses_no_event_and_is_not_lost(loop_factory: Kind) -> None:
    assert printed(ASLEEP, loop_factory)[4] == "raised 50 woken 50"


def test_eintr_a_handler_that_sends_what_the_sleeping_thread_waits_for(loop_factory: Kind) -> None:
    assert printed(WITH_FIBERS, loop_factory)[0] == "b'from the handler' [1]"


def test_eintr_a_storm_of_signals_loses_nothing_and_ends_no_wait_early(loop_factory: Kind) -> None:
    assert printed(WITH_FIBERS, loop_factory)[1] == "through the storm True"


def test_what_a_post_raises_stands_for_a_handler(loop: EventLoop) -> None:
    """The same without signals: an error between the parts of a turn comes out of it, and the next turn goes on."""
    waiter = Waiter()

    def fail() -> None:
        raise KeyboardInterrupt

    loop.post(fail)
    loop.post(loop.ready.append, waiter)
    try:
        loop.turn(False)
    except KeyboardInterrupt:
        loop.turn(False)
        assert list(loop.ready) == [waiter]
        loop.ready.clear()
    else:
        raise AssertionError("nothing came out")
