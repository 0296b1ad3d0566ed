"""Fibers: plain blocking Python at event-loop scale. See README.md and RFC.md."""

import sys

if sys.platform == "win32":
    raise ImportError("fibers runs on POSIX systems only: its event loops have no Windows backend")

from . import deadlock, from_thread, lowlevel, sync
from .channels.channel import Channel
from .channels.readiness import readable, writable
from .channels.selecting import after, default, select
from .core.cancel import CancelScope, current_deadline, move_on_after, move_on_at, shield, timeout, timeout_at
from .core.dump import dump
from .core.fiber import Fiber
from .core.lifecycle import all_fibers, run
from .core.local import Local
from .core.runtime import current, current_time, sleep, spawn, spawn_later, yield_now
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
from .from_thread import Portal
from .groups.gathering import as_completed, gather, wait
from .groups.group import TaskGroup
from .groups.pools import Pool
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
from .threads.fiber_thread import FiberThread
from .threads.futures import ThreadPoolExecutor, as_future, wait_future
from .threads.limiter import CapacityLimiter
from .threads.signals import open_signal_receiver
from .threads.to_thread import to_thread

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
