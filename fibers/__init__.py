"""Fibers: plain blocking Python at event-loop scale. See README.md and RFC.md."""

import sys

if sys.platform == "win32":
    raise ImportError("fibers runs on POSIX systems only: its event loops have no Windows backend")

from . import deadlock, lowlevel, sync
from .cancel import CancelScope, current_deadline, move_on_after, move_on_at, shield, timeout, timeout_at
from .dump import dump
from .errors import (
    BusyError,
    Cancelled,
    ClosedError,
    DeadlockError,
    FiberCancelled,
    FiberKilled,
    LoopClosedError,
    OwnershipError,
)
from .fiber import Fiber
from .group import TaskGroup
from .lifecycle import all_fibers, run
from .local import Local
from .runtime import current, current_time, sleep, spawn, spawn_later, yield_now
from .sync import (
    Barrier,
    BoundedSemaphore,
    BrokenBarrierError,
    Condition,
    Empty,
    Event,
    Full,
    LifoQueue,
    Lock,
    PriorityQueue,
    Queue,
    RLock,
    Semaphore,
    ShutDown,
    SimpleQueue,
    WaitGroup,
)

__version__ = "0.1.0.dev0"

__all__ = [
    "Barrier", "BoundedSemaphore", "BrokenBarrierError", "BusyError", "CancelScope", "Cancelled", "ClosedError",
    "Condition", "DeadlockError", "Empty", "Event", "Fiber", "FiberCancelled", "FiberKilled", "Full", "LifoQueue",
    "Local", "Lock", "LoopClosedError", "OwnershipError", "PriorityQueue", "Queue", "RLock", "Semaphore", "ShutDown",
    "SimpleQueue", "TaskGroup", "WaitGroup", "__version__", "all_fibers", "current", "current_deadline",
    "current_time", "deadlock", "dump", "lowlevel", "move_on_after", "move_on_at", "run", "shield", "sleep", "spawn",
    "spawn_later", "sync", "timeout", "timeout_at", "yield_now",
]  # fmt: skip
