"""The README's table of the event loops is the one that was measured: drawn from the kept result, and nothing else; and what
the text beside it says is what the numbers say.
"""

import dataclasses
import json
import platform
from pathlib import Path
from typing import Any

import pytest
from support.once import once

from bench import backends
from fibers.backends.figures import Comparison, Figures, Plan, read
from fibers.eventloop import BACKENDS
from fibers.measure.progress import Progress

pytestmark = once


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(backends.KEPT.read_text("utf-8"))
    return found


def test_the_table_of_the_readme_is_the_one_that_was_measured(kept: dict[str, Any]) -> None:
    page = backends.README.read_text("utf-8")
    assert backends.taken(page) == backends.markdown(kept)
    assert backends.put(page, backends.markdown(kept)) == page


def test_it_was_a_long_run_of_every_loop_of_linux_on_a_clean_checkout(kept: dict[str, Any]) -> None:
    comparison = read(kept["measured"])
    assert set(comparison.rows) == set(BACKENDS) - {"kqueue"}
    assert comparison.reference == "epoll"
    assert (comparison.plan.rounds, comparison.plan.seconds) == (backends.PLAN.rounds, backends.PLAN.seconds)
    assert comparison.failed == {}
    assert comparison.not_counted == kept["debug"] == ""
    assert kept["commit"]
    assert not kept["commit"].endswith("+")


def test_the_figures_say_what_the_text_says(kept: dict[str, Any]) -> None:
    comparison = read(kept["measured"])
    rows, messages = comparison.rows, comparison.plan.messages
    for name in ("epoll", "poll", "select"):
        assert rows[name].registrations == 1.0
        assert sum(rows[name].calls.values()) == pytest.approx(2.0, abs=0.02)
        assert rows[name].wakeups == 0
    assert rows["libevent"].registrations == messages
    assert rows["libevent"].calls["epoll_ctl"] == 2.0
    assert sum(rows["libevent"].calls.values()) == pytest.approx(6.0, abs=0.02)
    assert rows["libevent"].wakeups == 0
    cost = comparison.ratio("libevent", "cpu")
    assert cost is not None
    assert cost > 1.2


# -- the machinery

PAGE = f"before\n{backends.BEGIN}\nold\n{backends.END}\nafter\n"


def test_a_table_is_put_in_the_place_of_the_old_one() -> None:
    new = backends.put(PAGE, "new\nand more")
    assert new == f"before\n{backends.BEGIN}\nnew\nand more\n{backends.END}\nafter\n"
    assert backends.taken(new) == "new\nand more"


@pytest.mark.parametrize(
    "page",
    [
        "",
        backends.BEGIN,
        backends.END,
        f"{backends.END}{backends.BEGIN}",
        PAGE + backends.BEGIN,
        PAGE + backends.END,
        backends.END + PAGE,
        backends.BEGIN + PAGE,
    ],
)
def test_a_page_without_one_clear_place_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="must have"):
        backends.put(page, "new")


COMPARISON = Comparison(
    "epoll", Plan(rounds=2), {"epoll": Figures({"recvfrom": 1.0}, 1.0, [9.0, 9.0], [1e-6, 1e-6], 0)}
)


def run(folder: Path, comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> tuple[int, Path, Path]:
    """The command, with a measurement that takes no time: exit status, result, page."""
    result, page = folder / "result.json", folder / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    asked: list[Plan] = []

    def compare(plan: Plan, progress: Progress) -> Comparison:
        asked.append(plan)
        return comparison

    monkeypatch.setattr(backends, "compare", compare)
    monkeypatch.setattr("sys.argv", ["bench.backends", "--rounds", "2", "--json", str(result), "--readme", str(page)])
    status = backends.main()
    assert asked == [dataclasses.replace(backends.PLAN, rounds=2)]
    return status, result, page


def test_a_run_keeps_its_result_and_draws_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, result, page = run(tmp_path, COMPARISON, monkeypatch)
    assert status == 0
    kept = json.loads(result.read_text("utf-8"))
    assert read(kept["measured"]) == COMPARISON
    assert kept["versions"]["python"] == platform.python_version()
    assert backends.taken(page.read_text("utf-8")) == backends.markdown(kept)
    assert "\n| epoll | 1 | 1 | 1.00× | 1.00× | 0 | recvfrom 1 |\n" in page.read_text("utf-8")
    assert page.read_text("utf-8").endswith(f"{backends.END}\nafter\n")


@pytest.mark.parametrize("lack", [{"failed": {"epoll": "no luck"}}, {"not_counted": "strace is not installed"}])
def test_a_run_that_could_not_measure_everything_changes_nothing(
    lack: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, result, page = run(tmp_path, dataclasses.replace(COMPARISON, **lack), monkeypatch)
    assert status == 1
    assert not result.exists()
    assert page.read_text("utf-8") == PAGE
