"""gevent.selectors: a selector that suspends a fiber."""

from collections.abc import Callable
from selectors import PollSelector
from typing import Any

from ...patch.polling import NAMES


class GeventSelector(PollSelector):
    """A PollSelector whose `select` suspends a fiber."""

    _selector_cls: Callable[[], Any] = NAMES["poll"]


DefaultSelector = GeventSelector

__all__ = ["DefaultSelector", "GeventSelector"]
