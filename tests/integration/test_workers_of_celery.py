"""Real celery workers on our pool, with a real Redis between them and us.

What they do is in support/celery_scenarios.py, which runs once, in a process of its own (conftest.py).
"""

from collections.abc import Mapping

import pytest
from support.once import once
from support.scale import SCALE

pytest.importorskip("celery", reason="pip install fibers-runtime[celery]")

pytestmark = once


@pytest.mark.parametrize(
    "scenario",
    [
        "tasks_wait_side_by_side_in_all_workers",
        "limits",
        "errors",
        "revocation_and_what_inspect_says",
        "the_ends_of_workers",
        pytest.param(
            "a_transport_without_a_loop",
            marks=pytest.mark.skipif(SCALE < 1, reason="starts one more worker; make soak"),
        ),
    ],
)
def test_workers(celery_told: Mapping[str, str], scenario: str) -> None:
    assert celery_told[scenario] == ""
