"""eventlet.green.os: that of `fibers.io`, a drop-in for the standard module."""

from ....io.os import *  # noqa: F403
