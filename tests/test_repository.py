"""What the documents and scripts promise exists: targets, links, files; and what must be runnable is."""

import os
import re
import tomllib
from pathlib import Path

import pytest
from support.once import once
from support.process import ROOT

pytestmark = once

PAGES = ["README.md", "RFC.md", "CHANGELOG.md", "docs/testing.md"]
_TARGET = re.compile(r"^([a-z-]+):(?!=).*?(?:## (.*))?$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def makefile_targets() -> dict[str, str]:
    return dict(_TARGET.findall((ROOT / "Makefile").read_text("utf-8")))


def test_every_target_explains_itself() -> None:
    assert [target for target, text in makefile_targets().items() if not text] == []


@pytest.mark.parametrize("file", [*PAGES, ".ci/run"])
def test_make_commands_that_are_promised_exist(file: str) -> None:
    said = set(re.findall(r"(?:`|\$ |^step )make ([a-z][a-z-]*)", (ROOT / file).read_text("utf-8"), re.MULTILINE))
    assert said - set(makefile_targets()) == set()


@pytest.mark.parametrize("file", PAGES)
def test_links_to_files_lead_somewhere(file: str) -> None:
    prose = _FENCE.sub("", (ROOT / file).read_text("utf-8"))
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in link]
    assert [link for link in links if link and not (ROOT / link).exists()] == []


@pytest.mark.parametrize("script", [".ci/run", ".ci/debian.sh", ".ci/debian-bench-http.sh"])
def test_scripts_are_executable_and_stop_at_the_first_fault(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert path.read_text("utf-8").startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in path.read_text("utf-8")


def test_ci_gives_the_judgement_that_a_person_gets() -> None:
    assert "\nstep make test\n" in (ROOT / ".ci/run").read_text("utf-8")


def test_licence_is_the_one_that_the_metadata_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert re.search(r"Apache License\s+Version 2\.0", text)
    assert "END OF TERMS AND CONDITIONS" in text


def test_changelog_has_a_place_for_the_next_entry() -> None:
    assert re.search(r"^## \[Unreleased\]$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)


def test_every_file_ends_with_one_newline_and_holds_no_tab() -> None:
    def sound(path: Path) -> bool:
        text = path.read_text("utf-8")
        return not text or (text.endswith("\n") and not text.endswith("\n\n") and "\t" not in text)

    folders = ["fibers", "tests", "bench", "examples"]
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    files += [
        ROOT / name for name in [*PAGES, "pyproject.toml", ".ci/run", ".ci/debian.sh", ".ci/debian-bench-http.sh"]
    ]
    assert [str(path) for path in files if not sound(path)] == []
