"""eventlet.green.ssl: that of `fibers.io`, a drop-in for the standard module."""

from ....io.ssl import *  # noqa: F403
