"""Tests in which the loop plays no part run on the default loop alone: the whole suite has to run on each in minutes."""

from typing import Final

import pytest

from fibers.eventloop import BACKEND

once: Final = pytest.mark.skipif(
    BACKEND not in ("epoll", "kqueue"), reason="the loop has no part in it: the default loop's run has this test"
)
