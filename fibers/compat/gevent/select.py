"""gevent.select: the standard functions, suspending a fiber."""

# Names that the star brings in are defined again below: that is what a drop-in does.
# mypy: disable-error-code="misc, assignment, no-redef"

from select import *  # noqa: F403

from ...patch.polling import NAMES

select = NAMES["select"]
poll = NAMES["poll"]
if "epoll" in NAMES:
    epoll = NAMES["epoll"]
if "kqueue" in NAMES:
    kqueue = NAMES["kqueue"]
