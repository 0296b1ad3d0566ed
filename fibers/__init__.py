"""Fibers: plain blocking Python at event-loop scale. See README.md and RFC.md."""

import sys

if sys.platform == "win32":
    raise ImportError("fibers runs on POSIX systems only: its event loops have no Windows backend")

from . import deadlock, from_thread, lowlevel, sync
from .cancel import CancelScope, current_deadline, move_on_after, move_on_at, shield, timeout, timeout_at
from .channel import Channel
from .dump import dump
from .errors import (
    BusyError,
    Cancelled,
    ChannelClosed,
    ClosedError,
    ContractError,
    DeadlockError,
    FiberCancelled,
    FiberKilled,
    LoopClosedError,
    OwnershipError,
)
from .fiber import Fiber
from .fiber_thread import FiberThread
from .from_thread import Portal
from .futures import ThreadPoolExecutor, as_future, wait_future
from .gathering import as_completed, gather, wait
from .group import TaskGroup
from .lifecycle import all_fibers, run
from .limiter import CapacityLimiter
from .local import Local
from .pools import Pool
from .readiness import readable, writable
from .runtime import current, current_time, sleep, spawn, spawn_later, yield_now
from .selecting import after, default, select
from .signals import open_signal_receiver
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
from .threads import to_thread

__version__ = "0.1.0.dev0"

__all__ = [
    "Barrier", "BoundedSemaphore", "BrokenBarrierError", "BusyError", "CancelScope", "Cancelled", "CapacityLimiter",
    "Channel", "ChannelClosed", "ClosedError", "Condition", "ContractError", "DeadlockError", "Empty", "Event",
    "Fiber", "FiberCancelled", "FiberKilled", "FiberThread", "Full", "LifoQueue", "Local", "Lock",
    "LoopClosedError", "OwnershipError", "Pool", "Portal", "PriorityQueue", "Queue", "RLock", "Semaphore",
    "ShutDown", "SimpleQueue", "TaskGroup", "ThreadPoolExecutor", "WaitGroup", "__version__", "after", "all_fibers",
    "as_completed", "as_future", "current", "current_deadline", "current_time", "deadlock", "default", "dump",
    "from_thread", "gather", "lowlevel", "move_on_after", "move_on_at", "open_signal_receiver", "readable", "run",
    "select", "shield", "sleep", "spawn", "spawn_later", "sync", "timeout", "timeout_at", "to_thread", "wait",
    "wait_future", "writable", "yield_now",
]  # fmt: skip
