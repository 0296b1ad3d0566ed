"""Real celery workers on our pool, with a real Redis between them and us.

What they do is in support/celery_scenarios.py, which runs once, in a process of its own.
"""

import json

import pytest
from support.process import ROOT, run_python
from support.scale import SCALE
from support.servers import find

from fibers.eventloop import BACKEND

pytest.importorskip("celery", reason="pip install fibers-runtime[celery]")

pytestmark = pytest.mark.skipif(
    BACKEND != "epoll" and SCALE < 1, reason="starts celery for what does not depend on the event loop; make soak"
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What went wrong in each scenario."""
    find("redis-server", "redis-server")
    folder = tmp_path_factory.mktemp("celery")
    env = {"PYTHONPATH": str(ROOT / "tests")}
    done = run_python("-W", "ignore", "-m", "support.celery_scenarios", folder, env=env, timeout=100)
    assert done.returncode == 0, done.stderr
    return dict(map(json.loads, done.stdout.splitlines()))


@pytest.mark.parametrize(
    "scenario",
    [
        "tasks_wait_side_by_side_in_all_workers",
        "limits",
        "errors",
        "revocation_and_what_inspect_says",
        "the_ends_of_workers",
    ],
)
def test_workers(told: dict[str, str], scenario: str) -> None:
    assert told[scenario] == ""
