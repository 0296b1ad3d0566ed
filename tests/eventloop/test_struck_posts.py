"""A signal handler that raises while posts are run loses none: who was struck at its first step is run later, nobody twice.

Facts. CPython looks for signals when a function starts. A post whose function is struck there has been taken out of the
inbox and has done nothing: a wake-up, a fiber from another thread, a close would be lost.
"""

from support.process import run_python
from support.scale import scaled

STORM = """
import signal, threading, time
import fibers

class Struck(Exception): ...
def strikes(*_):
    raise Struck

total, ran = {total}, []
loop = fibers.current().scheduler.loop

def post_all():
    for number in range(total):
        loop.post(one if number % 2 else other.two, number)

def one(number):
    ran.append(number)

class Other:
    def two(self, number):
        ran.append(number)

def insist(depth):
    while thread.is_alive() or not loop.quiet():
        try:
            if depth:
                insist(depth - 1)
            else:
                fibers.sleep(0.0005)
        except Struck:
            pass

other = Other()
thread = threading.Thread(target=post_all)
thread.start()
signal.signal(signal.SIGALRM, strikes)
# A loop that checks its contract needs more than a millisecond to recover, and would do nothing else.
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.011 if fibers.eventloop.CHECKED else 0.0011)
for _ in range(1000):  # some come out of `insist`, the more the busier the machine
    try:
        insist(12)
        signal.setitimer(signal.ITIMER_REAL, 0)
        thread.join()
        break
    except Struck:
        pass
print(ran == list(range(total)) or (len(ran), len(set(ran)), total))
"""


def test_each_post_runs_once_and_in_order_whatever_strikes() -> None:
    ran = run_python("-c", STORM.format(total=scaled(1_000_000, least=50_000)), timeout=100)
    assert ran.stdout == "True\n", ran.stderr
