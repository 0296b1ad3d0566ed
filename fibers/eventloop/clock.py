"""The clock of the loops.

The monotonic clock is captured when this module is imported: a test that patches `time.monotonic` later must not
stop a running loop. Every deadline in this package is a float on the clock of the loop that serves it, in seconds.
"""

from collections.abc import Callable
from time import monotonic
from typing import Final

Clock = Callable[[], float]

MONOTONIC: Final[Clock] = monotonic

#: A deadline that never comes. No timer is made for it.
FOREVER: Final = float("inf")
