"""gevent.subprocess: that of `fibers.io`, a drop-in for the standard module."""

from ...io.subprocess import *  # noqa: F403
from ...io.subprocess import __all__ as __all__
