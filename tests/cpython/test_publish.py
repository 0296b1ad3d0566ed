"""The table of docs/cpython-tests.md, and the runs that it is drawn from."""

import json
from pathlib import Path

import pytest
from cpython import skips
from cpython.publish import BEGIN, END, KEPT, PAGE, draw, gather, put, sums
from support.once import once

pytestmark = once


def test_the_table_of_the_page_is_the_one_that_was_measured() -> None:
    page = PAGE.read_text("utf-8")
    assert put(page, draw(json.loads(KEPT.read_text()))) == page


def test_what_was_measured_leaves_out_what_is_left_out_now() -> None:
    for version, files in json.loads(KEPT.read_text()).items():
        minor = version.rpartition(".")[0]
        total = sums(files)
        assert total["left_out"] <= len(skips.load(minor)) < 60
        assert total["passed"] == total["judged"] > 2500, version


def test_a_run_with_failures_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no result"):
        gather(tmp_path)
    (tmp_path / "3.11.7").mkdir()
    verdict = {
        "file": "test_a",
        "judged": 2,
        "passed": 1,
        "left_out": 0,
        "waited": 1,
        "failed": {"test_a.B.test_c": {}},
    }
    (tmp_path / "3.11.7" / "results.json").write_text(json.dumps([verdict]))
    with pytest.raises(ValueError, match=r"3\.11\.7 has 1 failures, the first of them test_a\.B\.test_c"):
        gather(tmp_path)


def test_folders_are_one_row_and_what_is_missing_a_dash() -> None:
    figures = {"judged": 2, "passed": 2, "left_out": 1, "waited": 1}
    drawn = draw(
        {"3.11.7": {"test_a": figures}, "3.13.0": {"test_a": figures, "test_b.c": figures, "test_b.d": figures}}
    )
    assert "| test_a | 2, 1 left out | 2, 1 left out |" in drawn
    assert "| test_b | – | 4, 2 left out |" in drawn
    assert "| **left out** | **1** | **3** |" in drawn


def test_a_page_needs_a_place_for_it() -> None:
    assert put(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
    with pytest.raises(ValueError, match="no place"):
        put("nothing", "new")
