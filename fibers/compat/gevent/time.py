"""gevent.time: the sleep that suspends a fiber."""

from .hub import sleep

__all__ = ["sleep"]
