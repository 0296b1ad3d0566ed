"""gevent.select: the standard functions, suspending a fiber."""

from select import *  # noqa: F403

from ...patch.polling import NAMES

select = NAMES["select"]
poll = NAMES["poll"]

if "epoll" in NAMES:
    epoll = NAMES["epoll"]
if "kqueue" in NAMES:
    kqueue = NAMES["kqueue"]
