"""eventlet.green.time: the standard functions, suspending a fiber."""

from ...gevent.time import *  # noqa: F403
