"""eventlet.green.selectors: the standard functions, suspending a fiber."""

from ...gevent.selectors import *  # noqa: F403
