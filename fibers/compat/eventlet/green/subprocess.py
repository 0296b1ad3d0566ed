"""eventlet.green.subprocess: that of `fibers.io`, a drop-in for the standard module."""

from ....io.subprocess import *  # noqa: F403
