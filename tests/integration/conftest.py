"""What the tests with programs of others share: one that takes its time is started before any of them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.process import ROOT, environment
from support.servers import find, mortal

#: Seconds for all that celery is to do.
LIMIT = 100.0


class Told:
    """What support/celery_scenarios.py says in the end: for each scenario what went wrong, or ""."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.child = subprocess.Popen(
                [*mortal(), sys.executable, "-W", "ignore", "-m", "support.celery_scenarios", folder],
                env=environment({"PYTHONPATH": str(ROOT / "tests")}),
                stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip

    def __getitem__(self, scenario: str) -> str:
        status = self.child.wait(LIMIT)
        said = dict(map(json.loads, (self._folder / "out").read_text().splitlines()))
        problem = "" if status == 0 else f"ended with {status}: {(self._folder / 'err').read_text()}"
        return problem or str(said[scenario])


@pytest.fixture(scope="session")
def celery_told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """The scenarios, on their way."""
    find("redis-server", "redis-server")
    told = Told(tmp_path_factory.mktemp("celery"))
    yield told
    told.child.kill()
    told.child.wait()


@pytest.fixture(scope="session", autouse=True)
def _celery_begins_early(request: pytest.FixtureRequest) -> None:
    """If it is wanted at all: it waits most of the time, and the others can be tested meanwhile."""
    wanted = [item for item in request.session.items if "celery_told" in getattr(item, "fixturenames", ())]
    if any(not mark.args[0] for item in wanted for mark in item.iter_markers("skipif")):
        request.getfixturevalue("celery_told")
