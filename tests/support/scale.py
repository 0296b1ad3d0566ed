"""How long random tests run, and with which seed: one knob each.

`FIBERS_TEST_SCALE` is a factor: 1 is a soak (minutes per test), 0.05, the default, is what everybody waits
for. Random tests that draw their own numbers take them from `SEED`, which the head of the report prints;
setting `FIBERS_TEST_SEED` to that number plays the same run again. CI is derandomised (seed 0): a red build
must mean a change, never bad luck. New luck is what `make soak` is for.
"""

import os
import random
from typing import Final

IN_CI: Final = bool(os.environ.get("CI"))
SCALE: Final = float(os.environ.get("FIBERS_TEST_SCALE", "0.05"))
DERANDOMISED: Final = IN_CI and SCALE < 1
SEED: Final = int(os.environ.get("FIBERS_TEST_SEED") or (0 if DERANDOMISED else random.randrange(2**32)))


def scaled(full: int, least: int = 1) -> int:
    """`full` rounds at scale 1, in proportion below or above it, never fewer than `least`."""
    return max(least, int(full * SCALE))
