"""Primitives with the names, signatures and semantics of `threading` and `queue`, for fibers and threads at once.

Each may be used by fibers of any thread and by plain threads at the same time. All wait in one kind of queue
(waitqueue.py), in order of arrival, and hand over directly: no newcomer gets ahead. A fiber that is cancelled while it
waits has not taken or left anything. A call with a timeout reports a passed deadline of an enclosing scope as that timeout,
once; without one it raises Cancelled. `waiting.py` tells how all this comes about.
"""

from .barrier import Barrier, BrokenBarrierError
from .condition import Condition
from .event import Event
from .lock import Lock, RLock
from .queue import Empty, Full, LifoQueue, PriorityQueue, Queue, ShutDown
from .semaphore import BoundedSemaphore, Semaphore
from .simplequeue import SimpleQueue
from .waitgroup import WaitGroup

__all__ = [
    "Barrier", "BoundedSemaphore", "BrokenBarrierError", "Condition", "Empty", "Event", "Full", "LifoQueue", "Lock",
    "PriorityQueue", "Queue", "RLock", "Semaphore", "ShutDown", "SimpleQueue", "WaitGroup",
]  # fmt: skip
