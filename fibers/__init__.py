"""Fibers: plain blocking Python at event-loop scale. See README.md and RFC.md."""

import sys

if sys.platform == "win32":
    raise ImportError("fibers runs on POSIX systems only: its event loops have no Windows backend")

from . import deadlock, lowlevel
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
from .gathering import as_completed, gather, wait
from .group import TaskGroup
from .lifecycle import all_fibers, run
from .pools import Pool
from .readiness import readable, writable
from .runtime import current, current_time, sleep, spawn, spawn_later, yield_now
from .selecting import after, default, select

__version__ = "0.1.0.dev0"

__all__ = [
    "BusyError", "CancelScope", "Cancelled", "Channel", "ChannelClosed", "ClosedError", "ContractError",
    "DeadlockError", "Fiber", "FiberCancelled", "FiberKilled", "LoopClosedError", "OwnershipError", "Pool",
    "TaskGroup", "__version__", "after", "all_fibers", "as_completed", "current", "current_deadline",
    "current_time", "deadlock", "default", "dump", "gather", "lowlevel", "move_on_after", "move_on_at", "readable",
    "run", "select", "shield", "sleep", "spawn", "spawn_later", "timeout", "timeout_at", "wait", "writable",
    "yield_now",
]  # fmt: skip
