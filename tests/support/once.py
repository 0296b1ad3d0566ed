"""Tests of what no event loop has a part in need not be repeated on each."""

from typing import Final

import pytest

from fibers.eventloop import BACKEND, DEFAULT

once: Final = pytest.mark.skipif(
    BACKEND != DEFAULT, reason="no event loop has a part in this; it is tested on the default one"
)
