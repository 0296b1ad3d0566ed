"""The runner itself: what it makes of tests that pass, fail, hang and crash, and of lines that skip them."""

import os
from pathlib import Path

import pytest
from cpython import skips
from cpython.running import FileRun, Order, Result, run_file
from cpython.skips import Skip, parse
from cpython.verdict import judge, summary, table
from support.once import once

pytestmark = once

SAMPLE = """
import os, sys, threading, time, unittest

class Outcomes(unittest.TestCase):
    def test_a_ok(self): pass
    def test_b_fails(self): self.assertEqual(1, 2)
    def test_c_raises(self): raise OSError("gone")
    def test_d_skipped(self): self.skipTest("not here")
    @unittest.expectedFailure
    def test_e_expected(self): self.fail()
    @unittest.expectedFailure
    def test_f_unexpected(self): pass
    def test_g_parts(self):
        for part in range(3):
            with self.subTest(part=part):
                self.assertNotEqual(part, 1)
    def test_h_hangs(self): threading.Event().wait()
    def test_i_dies(self): os.abort()
    def test_j_left_out(self): self.fail()
    def test_k_waits(self): time.sleep(0.001)
    def test_l_resource(self):
        from test import support
        support.requires("network")

class Setup(unittest.TestCase):
    @classmethod
    def setUpClass(cls): raise RuntimeError("no set-up")
    def test_never(self): pass
"""


def run(tmp_path: Path, source: str, patched: bool = False, **more: object) -> FileRun:
    (tmp_path / "test_sample_of_ours.py").write_text(source)
    order = Order("test_sample_of_ours", patched, folder=str(tmp_path), **more)  # type: ignore[arg-type]
    return run_file(order, tmp_path / "log", dict(os.environ))


def test_every_test_comes_to_one_outcome(tmp_path: Path) -> None:
    found = run(tmp_path, SAMPLE, leave=("test_sample_of_ours.Outcomes.test_j_left_out",), limit=1.0)
    outcomes = {name.removeprefix("test_sample_of_ours"): result.outcome for name, result in found.results.items()}
    assert outcomes == {
        ".Outcomes.test_a_ok": "ok",
        ".Outcomes.test_b_fails": "fail",
        ".Outcomes.test_c_raises": "error",
        ".Outcomes.test_d_skipped": "skip",
        ".Outcomes.test_e_expected": "xfail",
        ".Outcomes.test_f_unexpected": "fail",
        ".Outcomes.test_g_parts": "fail",
        ".Outcomes.test_h_hangs": "hung",
        ".Outcomes.test_i_dies": "died",
        ".Outcomes.test_k_waits": "ok",
        ".Outcomes.test_l_resource": "skip",
        "setUpClass (test_sample_of_ours.Setup)": "error",
        " (exit)": "ok",
    }
    assert "gone" in found.results["test_sample_of_ours.Outcomes.test_c_raises"].detail
    assert "part=1" in found.results["test_sample_of_ours.Outcomes.test_g_parts"].detail
    assert "test_h_hangs" in (tmp_path / "log").read_text(), "faulthandler tells where it stood"
    assert "test_sample_of_ours.Outcomes.test_j_left_out" in found.listed


def test_a_file_that_cannot_be_imported_is_an_error(tmp_path: Path) -> None:
    found = run(tmp_path, "import no_such_module")
    assert {name: result.outcome for name, result in found.results.items()} == {"test_sample_of_ours (import)": "error"}
    assert "no_such_module" in (tmp_path / "log").read_text()


def test_an_interpreter_that_ends_badly_is_an_error(tmp_path: Path) -> None:
    end = "import atexit, os, unittest\natexit.register(os._exit, 3)\nclass A(unittest.TestCase):\n def test_a(self): pass"
    found = run(tmp_path, end)
    assert found.results["test_sample_of_ours (exit)"].outcome == "died"


def test_memory_is_limited(tmp_path: Path) -> None:
    greedy = "import unittest\nclass A(unittest.TestCase):\n def test_a(self): bytearray(1 << 31)"
    found = run(tmp_path, greedy, memory=1 << 30)
    assert "MemoryError" in found.results["test_sample_of_ours.A.test_a"].detail


def test_a_skip_needs_a_version_a_test_and_a_reason() -> None:
    assert parse("# text\n\nall  test_a.B.test_c -- counts threads\n3.11,3.12 test_a.B.test_d -- as well") == [
        Skip("test_a.B.test_c", frozenset(), "counts threads"),
        Skip("test_a.B.test_d", frozenset({"3.11", "3.12"}), "as well"),
    ]
    for bad in ["all test_a.B.test_c", "all test_a.B.test_c --", "test_a.B.test_c -- why", "3.x test_a.B.c -- why"]:
        with pytest.raises(ValueError, match=r"skips\.txt:2 is not"):
            parse("\n" + bad)


def test_a_test_is_skipped_once_a_version() -> None:
    parse("3.11 test_a.B.test_c -- why\n3.12 test_a.B.test_c -- why")
    for versions in ("all", "3.12,3.13"):
        with pytest.raises(ValueError, match="a second time"):
            parse(f"3.12 test_a.B.test_c -- why\n{versions} test_a.B.test_c -- why")


def test_the_list_of_skips_is_in_order_and_short() -> None:
    for version in ("3.11", "3.12", "3.13"):
        assert len(skips.load(version)) < 60


def test_judged_is_what_passes_without_fibers() -> None:
    plain = FileRun("test_a", 1.0)
    plain.results = {
        "test_a.passes": Result("ok"),
        "test_a.waits": Result("ok"),
        "test_a.fails_here": Result("ok"),
        "test_a.fails_anyway": Result("fail"),
        "test_a.skipped_anyway": Result("skip"),
        "test_a.left_out": Result("ok"),
        "test_a.missing": Result("ok"),
    }
    patched = FileRun("test_a", 2.0)
    patched.results = {
        "test_a.passes": Result("ok"),
        "test_a.waits": Result("ok", waits=3),
        "test_a.fails_here": Result("skip"),
        "test_a.fails_anyway": Result("fail"),
        "setUpClass (test_a.B)": Result("error"),
    }
    lines = [Skip("test_a.left_out", frozenset(), "why"), Skip("test_a.fails_anyway", frozenset(), "why")]
    verdict = judge(plain, patched, {line.test: line for line in lines})
    assert (verdict.judged, verdict.passed, verdict.waited) == (4, 2, 1)
    assert (verdict.not_ours, verdict.left_out) == (2, 1)
    assert sorted(verdict.failed) == ["setUpClass (test_a.B)", "test_a.fails_here", "test_a.missing"]
    assert verdict.needless == ["test_a.fails_anyway"]
    assert "| **all** | 2 | 4 | 1 | 1 |" in table([verdict])
    assert "1 tests are left out (skips.txt; at most 59; gevent 126)" in summary([verdict], "3.11")
