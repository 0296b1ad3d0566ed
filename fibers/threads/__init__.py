"""Between fibers and threads: work that would block the loop, and calls from outside of it.

    workers       the pool of threads: it grows with need and shrinks when idle
    limiter       `CapacityLimiter`: how many at once
    completion    a result that a fiber or a plain thread waits for
    to_thread     `to_thread`
    fiber_thread  `FiberThread`: a thread with a loop of its own
    futures       `ThreadPoolExecutor`, and futures of others
    signals       `open_signal_receiver`

The way back, `fibers.from_thread`, is a public module of its own.
"""
