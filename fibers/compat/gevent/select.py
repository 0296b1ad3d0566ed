"""gevent.select: the standard functions, suspending a fiber."""

from select import error

from ...patch.polling import NAMES

select = NAMES["select"]
poll = NAMES["poll"]

__all__ = ["error", "poll", "select"]
