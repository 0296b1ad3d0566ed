"""The names of gevent and eventlet on fibers: a program moves here by changing an import.

    from fibers.compat import gevent        instead of   import gevent
    from fibers.compat import eventlet      instead of   import eventlet

Each of the two packages has the modules of the original, with its names, its signatures and its semantics where they can
be seen from outside. What stands behind them is the rest of `fibers`, and nothing there knows of this package. Facts come
from the documentation of the two projects and from what their test-suites expect; docs/compat.md lists every difference.

What both of them need and `fibers` does not have in public: `running` (who runs), `striking` (an exception that comes once,
at a time, and can be taken back).
"""
