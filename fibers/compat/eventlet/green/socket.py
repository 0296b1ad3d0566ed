"""eventlet.green.socket: that of `fibers.io`, a drop-in for the standard module."""

from ....io.socket import *  # noqa: F403
