"""gevent.ssl: that of `fibers.io`, a drop-in for the standard module."""

from ...io.ssl import *  # noqa: F403
from ...io.ssl import __all__ as __all__
