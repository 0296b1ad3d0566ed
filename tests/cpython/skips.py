"""Reads skips.txt: which tests are left out on fibers, and why."""

import re
from dataclasses import dataclass
from pathlib import Path

SKIPS = Path(__file__).with_name("skips.txt")

_LINE = re.compile(r"(?P<versions>all|3\.\d+(,3\.\d+)*)\s+(?P<test>test_\w+(\.\w+)+)\s+--\s+(?P<reason>\S.+)")


@dataclass(frozen=True)
class Skip:
    """One line. `versions` is empty for all."""

    test: str
    versions: frozenset[str]
    reason: str

    @property
    def file(self) -> str:
        return self.test.split(".")[0]

    def concerns(self, version: str) -> bool:
        return not self.versions or version in self.versions


def parse(text: str) -> list[Skip]:
    """The skips in a text. Raises ValueError, with the line, for what is not a skip with a reason, or is one twice."""
    skips: list[Skip] = []
    seen: dict[str, frozenset[str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise ValueError(
                f"skips.txt:{number} is not 'VERSIONS test_file.Class.test -- reason' (VERSIONS: all, or 3.11,3.12): {line}"
            )
        versions = frozenset() if found["versions"] == "all" else frozenset(found["versions"].split(","))
        before = seen.get(found["test"])
        if before is not None and (not before or not versions or before & versions):
            raise ValueError(f"skips.txt:{number} skips {found['test']} a second time")
        seen[found["test"]] = versions | (before or frozenset())
        skips.append(Skip(found["test"], versions, found["reason"]))
    return skips


def load(version: str, path: Path = SKIPS) -> dict[str, Skip]:
    """The skips of one version of Python ("3.11"), by test."""
    return {skip.test: skip for skip in parse(path.read_text()) if skip.concerns(version)}
