"""Which tests hold on which event loops.

What the contract promises is tested on every loop. What only a loop with lifetime registration promises (how often a
file is registered, whose it is, what is in its tables) is marked `lifetime_only`: libevent registers for each wait, and
lets any thread wait for any fd.
"""

from typing import Final

import pytest

from fibers.eventloop import BACKEND

#: Does the loop in use register files for their lifetime?
LIFETIME: Final = BACKEND != "libevent"

lifetime_only: Final = pytest.mark.skipif(
    not LIFETIME,
    reason="lifetime registration and ownership: libevent registers for each wait, and any thread may wait for any fd",
)
