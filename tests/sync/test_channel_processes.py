"""Channels where it takes a process of its own: raising signal handlers, finalisers, fork, deadlock, Ctrl-C.

Signal handlers that raise: at the first, second, third … point of the package's code at which CPython could run a handler,
one exception is raised there, in a fresh program (see tests/core/test_raising_handlers.py). It may come out of the call
that was under way; that is then called again. Or it goes to main. Whatever happens, each value arrives exactly once, and
nobody waits for ever.
"""

from support.process import run_python
from support.scale import scaled

EVERY_POINT = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
import fibers
from fibers import Channel, ChannelClosed, select, after
from fibers import scheduler as module
from fibers.guard import guard

class Boom(BaseException):
    pass

PACKAGE = os.path.dirname(fibers.__file__) + os.sep
# Runtime code, wherever it is; and all of these, also where they run as code of the fiber.
OURS = tuple(PACKAGE + name for name in ("channel.py", "passage.py", "choosing.py", "selecting.py", "guard.py"))
points = came_out = 0
target = -1
where = ""

def profile(frame, event, argument):
    global points, where
    if (event == "call" or event == "c_return") and frame.f_code.co_filename.startswith(PACKAGE):
        scheduler = module.state.scheduler
        ours = frame.f_code.co_filename.startswith(OURS)
        if scheduler is not None and not scheduler.closed and (ours or scheduler.current is None):
            points += 1
            if points == target:
                where = f"{frame.f_code.co_qualname}, line {frame.f_lineno}, {event} {argument}"
                print("striking in", where, file=sys.stderr)
                raise Boom(where)

def again(call, *args):
    global came_out
    while True:
        try:
            return call(*args)
        except Boom:
            came_out += 1

def count_unraisable(report):
    global came_out
    assert report.exc_type is Boom, report
    came_out += 1

sys.unraisablehook = count_unraisable

def program():
    rendezvous, buffered, other = channels = Channel(), Channel(1), Channel()
    sent, got = [], []
    def send(channel, *values):
        for value in values:
            again(channel.send, value, 5)
            sent.append(value)
    def select_to_send(*values):
        for value in values:
            case, result = again(lambda: select(rendezvous.sending(value), other.sending(value), after(5)))
            assert result is None and case.channel is not None, where
            sent.append(value)
    def receive(channel):
        while True:
            try:
                got.append(again(channel.receive, 5))
            except ChannelClosed:
                return
    def select_to_receive():
        left = list(channels)
        while left:
            case, value = again(lambda: select(*[channel.receiving() for channel in left], after(5)))
            assert value is not None, where
            if value is ChannelClosed:
                left.remove(case.channel)
            else:
                got.append(value)
    def joiner(fiber):
        case, value = again(lambda: select(fiber.finishing(), after(5)))
        assert value is fiber, where
    def closer(senders):
        for fiber in senders:
            again(fiber.join, 5)
        while not again(other.try_send, 100):
            again(fibers.yield_now)
        sent.append(100)
        for channel in channels:
            again(channel.close)
    fibers.current()
    senders = [
        fibers.spawn(send, rendezvous, 1, 2, 3),
        fibers.spawn(send, buffered, 4, 5, 6),
        fibers.spawn(select_to_send, 7, 8),
    ]
    every = [
        *senders,
        fibers.spawn(receive, rendezvous),
        fibers.spawn(receive, buffered),
        fibers.spawn(receive, other),
        fibers.spawn(select_to_receive),
        fibers.spawn(joiner, senders[0]),
        fibers.spawn(closer, senders),
    ]
    booms = 0
    sys.setprofile(profile)
    for each in every:
        while not each._done:
            try:
                each.join(10)
            except Boom:
                booms += 1
    sys.setprofile(None)
    scheduler = module.state.scheduler
    while scheduler.main.interrupt:
        try:
            fibers.yield_now()
        except Boom:
            booms += 1
    for each in every:
        each.result()
    assert sorted(got) == sorted(sent) == [1, 2, 3, 4, 5, 6, 7, 8, 100], (where, got, sent)
    for channel in channels:
        assert not (channel._receiving or channel._sending), where
    assert guard.free == {0: None} and guard.owner == 0, where
    return booms

def one_run(number):
    global target, points, came_out
    target, points, came_out = number, 0, 0
    with ThreadPoolExecutor(1) as pool:
        def run():
            sys.setprofile(None)
            return program()
        booms = pool.submit(run).result(60)
    return booms + came_out

fibers.selecting.dice.seed(0)
one_run(-1)
total = points
start, step = int(sys.argv[1]), int(sys.argv[2])
struck = lost = 0
for number in range(1 + start, total + 1, step):
    fibers.selecting.dice.seed(0)
    struck += 1
    arrived = one_run(number)
    if arrived != 1:
        lost += 1
print(total > 300, struck > 0, "lost:", lost)
"""


def test_a_handler_that_raises_at_any_point_loses_no_value() -> None:
    step = max(1, 20 // scaled(20, least=1))
    child = run_python("-c", EVERY_POINT, "0", str(step), timeout=110)
    assert child.returncode == 0, child.stderr[-3000:]
    assert child.stdout == "True True lost: 0\n", child.stderr[-3000:]
