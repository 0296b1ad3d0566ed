"""For tests of programs that use fibers: tests that never sleep, and fail the same way twice.

    run, runtime         a program in a runtime of its own, with a virtual clock, in a shuffled order
    VirtualClock         hours pass in milliseconds
    wait_all_parked      go on when every other fiber waits
    Sequencer            steps of several fibers in an order of choice
    shuffle              the order of ready fibers drawn from a seed
    memory_pair, memory_network     sockets without file descriptors, with latency, partial writes, outages
    leak_guard           no fd, thread or fiber is left behind

pytest is not needed for these. With it, there is a plugin (plugin.py), which is loaded by itself. The guide is
docs/testing.md.
"""

from .clock import VirtualClock, VirtualClockError
from .idle import wait_all_parked
from .leaks import LeakError, leak_guard
from .memory import Link, MemoryListener, MemoryNetwork, MemorySocket, memory_network, memory_pair
from .runtime import run, runtime
from .sequencer import Sequencer
from .shuffle import shuffle
from .virtual import VirtualLoop, new_virtual_loop

__all__ = [
    "LeakError", "Link", "MemoryListener", "MemoryNetwork", "MemorySocket", "Sequencer", "VirtualClock",
    "VirtualClockError", "VirtualLoop", "leak_guard", "memory_network", "memory_pair", "new_virtual_loop", "run",
    "runtime", "shuffle", "wait_all_parked",
]  # fmt: skip
