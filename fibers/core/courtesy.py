"""A busy loop lets the other threads of its process have the interpreter.

Facts. A thread that wants the interpreter lock asks for it when it has waited for 5 ms *without the lock changing hands
or being let go*: every release wakes it, and its patience begins anew. An event loop lets go at each system call, and has
the lock back a microsecond later, long before a thread that sleeps in the kernel is on its feet. So a loop that is always
busy, and asks the kernel often, starves the others: a thread's sleep of 0.2 ms was seen to take 20 ms in the middle and
up to a second here, 9 s under gevent. Worker threads, with what fibers wait for, are among those who starve.

So: a loop that has kept a CPU busy for as long as a thread would be patient sleeps for a moment that is long enough for
another to wake up and take the lock, if there are other threads. That is some 60 µs in 5 ms. Who has waited for events,
or for the lock, has let others run, and does not sleep: it is seen by the CPU time of the thread, which then has not kept
pace with the clock.
"""

import sys
from _thread import _count as count_threads
from time import monotonic, sleep, thread_time
from typing import Final

#: Seconds after which a thread that wants the interpreter asks for it.
PATIENCE: Final = 0.005
#: Seconds that a sleep must take for another thread to wake up meanwhile (the kernel adds some 50 µs).
MOMENT: Final = 10e-6

_FREE_THREADED: Final = not getattr(sys, "_is_gil_enabled", lambda: True)()


class Courtesy:
    """What one thread has taken of the interpreter. For the thread itself."""

    __slots__ = ("_cpu", "_wall", "due")

    def __init__(self) -> None:
        self.due = 0.0  # when to call `pause` again, by the clock of its caller
        self._wall = monotonic()
        self._cpu = thread_time()

    def pause(self, now: float) -> bool:
        """To be called from `due` on: sleep for a moment if the thread has been busy since the last call. True if it did.

        A signal handler may raise in it.
        """
        self.due = now + PATIENCE
        if _FREE_THREADED or not count_threads():
            return False
        wall, cpu = monotonic(), thread_time()
        busy = cpu - self._cpu > (wall - self._wall) / 2
        if busy:
            sleep(MOMENT)
            wall, cpu = monotonic(), thread_time()
        self._wall, self._cpu = wall, cpu
        return busy
