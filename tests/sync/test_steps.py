"""What the sources call "one step" is one.

Facts. CPython gives the word to another thread, to a signal handler or to a finaliser where a function begins, at a jump
back, and at the end of a call. So a line may hold tests and assignments, and at most one call, after which it changes
nothing; and it must be one line, because a tracer may run between two. This is read in the bytecode of every line that
ends with `# one step`.
"""

import dis
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest
from support.process import ROOT

#: Instructions after which, or in which, CPython looks whether something else is to be run.
CALLS = re.compile(
    r"^(CALL|CALL_FUNCTION_EX|CALL_KW|CALL_INTRINSIC.*|RESUME|JUMP_BACKWARD.*|SEND|YIELD_VALUE|FOR_ITER|IMPORT_.*)$"
)
#: Instructions that change something that others can see.
CHANGES = re.compile(r"^(STORE_ATTR|STORE_SUBSCR|STORE_GLOBAL|DELETE_.*)$")

SOURCES = sorted((ROOT / "fibers" / "sync").glob("*.py"))


def marked(path: Path) -> list[int]:
    with path.open("rb") as file:
        comments = [each for each in tokenize.tokenize(file.readline) if each.type == tokenize.COMMENT]
    return [each.start[0] for each in comments if each.string.startswith("# one step")]


MARKED = [(path, number) for path in SOURCES for number in marked(path)]


def code_of(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from code_of(constant)


def instructions(path: Path, number: int) -> list[str]:
    found = []
    for code in code_of(compile(path.read_text(), str(path), "exec")):
        lines = dict(dis.findlinestarts(code))
        current: int | None = None
        for instruction in dis.get_instructions(code):
            current = lines.get(instruction.offset, current)
            if current == number:
                found.append(instruction.opname)
    return found


def complaint(names: list[str]) -> str | None:
    """What makes these instructions more than one step."""
    called = False
    for name in names:
        if called and (CHANGES.match(name) or CALLS.match(name)):
            return f"{name} comes after a call"
        called = called or bool(CALLS.match(name))
    return None


def test_there_are_such_lines() -> None:
    assert len(MARKED) >= 20


@pytest.mark.parametrize(
    ("path", "number"), MARKED, ids=lambda value: value.stem if isinstance(value, Path) else str(value)
)
def test_one_step(path: Path, number: int) -> None:
    names = instructions(path, number)
    assert names, "no code stands on this line"
    assert complaint(names) is None, names


@pytest.mark.parametrize(
    "line",
    [
        "if len(x.items) < 3: x.count += 1",
        "x.f(); x.count += 1",
        "x.f(); x.g()",
        "while x.count: x.count -= x.f()",
    ],
)
def test_the_check_finds_what_is_none(tmp_path: Path, line: str) -> None:
    path = tmp_path / "source.py"
    path.write_text(f"def f(x):\n    {line}\n")
    assert complaint(instructions(path, 2)) is not None


def test_the_check_lets_pass_what_is_one(tmp_path: Path) -> None:
    path = tmp_path / "source.py"
    path.write_text("def f(x):\n    if x.count > 0 and not x.line: x.count -= 1; return x.pop()\n")
    assert complaint(instructions(path, 2)) is None
