"""eventlet.green.select: the standard functions, suspending a fiber."""

from ...gevent.select import *  # noqa: F403
