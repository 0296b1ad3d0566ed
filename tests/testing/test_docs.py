"""The chapter on testing runs as written: its programs print what it says, its tests pass, and what it names exists.

A block marked `<!-- run: name -->` is a file. If its name begins with `test_` it is given to pytest, else to Python. (See
support/readme.py for the marks.)
"""

import re
from pathlib import Path

import pytest
from support.process import ROOT, run_python
from support.readme import read

from fibers import testing

TEXT = (ROOT / "docs/testing.md").read_text("utf-8")
PAGE = read(TEXT)
TESTS = [name for name in PAGE.programs if name.startswith("test_")]
PROGRAMS = [name for name in PAGE.programs if not name.startswith("test_")]

#: The plugin and no other: what the examples need is all that they get.
ENV = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "fibers.testing.plugin", "PYTEST_ADDOPTS": ""}


def test_the_tests_pass_as_written_in_the_usual_order_and_in_any_other(tmp_path: Path) -> None:
    for name in TESTS:
        (tmp_path / f"{name}.py").write_text(PAGE.programs[name])
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\nfilterwarnings = error\n")
    count = sum(len(re.findall(r"^def test_", PAGE.programs[name], re.MULTILINE)) for name in TESTS)
    for options in ([], ["--fibers-seed=random"]):
        child = run_python("-m", "pytest", "-p", "no:cacheprovider", *options, env=ENV, cwd=tmp_path)
        assert child.returncode == 0, child.stdout + child.stderr
        # One of them has two parameters.
        assert f"{count + 1} passed" in child.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_print_what_is_said(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name.replace('-', '_')}.py"
    path.write_text(PAGE.programs[name])
    child = run_python(path, cwd=tmp_path)
    assert child.returncode == 0, child.stderr
    assert child.stdout == PAGE.outputs[name]


def test_every_block_of_python_is_run() -> None:
    assert len(re.findall(r"^```python$", TEXT, re.MULTILINE)) == len(PAGE.programs)


def test_everything_public_is_explained() -> None:
    missing = {name for name in testing.__all__ if not re.search(rf"\b{name}\b", TEXT)}
    # The types of what one is given, and the loop that `run` makes.
    assert missing == {"MemoryListener", "MemoryNetwork", "MemorySocket", "VirtualLoop", "new_virtual_loop"}
