"""The programs of the chapters in docs/ run as written, and print what the page says."""

from pathlib import Path

import pytest
from support.process import ROOT
from support.readme import read
from test_readme import run_programs

#: testing.md has tests for programs, which tests/testing/test_docs.py runs.
PAGES = [
    page
    for page in sorted((ROOT / "docs").glob("*.md"))
    if page.name != "testing.md" and "<!-- run:" in page.read_text("utf-8")
]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_programs_run_as_written(path: Path, tmp_path: Path) -> None:
    page = read(path.read_text("utf-8"))
    assert len(page.programs) == len(page.outputs)
    run_programs(page, tmp_path)
