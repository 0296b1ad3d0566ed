"""`python -m fibers run`: a program runs as the plain interpreter runs it, and on fibers.

Each program is run twice, by both, and what they print, how they fail and how they end is compared.
"""

import signal
import sys
from pathlib import Path

import pytest
from support.once import once
from support.process import run_python

from fibers.patch import program, startup

GOOD = """
import sys, threading
print(sys.argv[1:], __name__, __builtins__, __doc__, __spec__ and __spec__.name, sys.path[0])
threading.Thread(target=lambda: 1 / 0, name="t").start()
"""
HOOK = """
import sys, traceback
sys.excepthook = lambda kind, error, tb: print(kind, traceback.print_tb(tb))
def f():
    1 / 0
f()
"""
PROGRAMS = {
    "good": GOOD,
    "syntax": "x = (\n",
    "interrupt": "raise KeyboardInterrupt\n",
    "hook": HOOK,
}


@once
@pytest.mark.parametrize("name", [*PROGRAMS, "-m good", "missing"])
def test_ends_as_in_the_plain_interpreter(tmp_path: Path, name: str) -> None:
    module, _, stem = name.rpartition(" ")
    if stem in PROGRAMS:
        (tmp_path / f"{stem}.py").write_text(PROGRAMS[stem])
    command = [module, stem] if module else [f"{stem}.py"]
    plain = run_python(*command, "--a", "b", cwd=tmp_path)
    ours = run_python("-m", "fibers", "run", *command, "--a", "b", cwd=tmp_path)
    assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    if stem == "interrupt":
        assert plain.returncode == -signal.SIGINT


def test_options_come_before_the_program_and_its_own_after_it(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(
        "import sys, fibers.patch, fibers.eventloop as e, functools, time\n"
        "print(sys.argv[1:], fibers.patch.is_patched('time.sleep'), fibers.patch.is_patched('select.select'), e.BACKEND)\n"
    )
    child = run_python(
        "-m", "fibers", "run", "--backend", "select", "--no-patch", "time", "--verify", path, "--backend", "x"
    )
    assert (child.stdout, child.returncode) == ("['--backend', 'x'] False True select\n", 0)
    assert all(line.startswith("python -m fibers run: escaped: ") for line in child.stderr.splitlines())


@once
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [([], "a script is needed, or -m and a module"), (["--no-patch", "x", "p.py"], "invalid choice: 'x'")],
)
def test_wrong_command_lines(
    arguments: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fibers", "run", *arguments])
    try:
        status: object = program.main()
    except SystemExit as end:
        status = end.code
    assert status == 2
    assert complaint in capsys.readouterr().err


@once
def test_fibers_patch_is_heeded_where_its_pth_is(tmp_path: Path) -> None:
    (tmp_path / startup.NAME).write_text(startup.LINE)
    script = (
        f"import site, sys; site.addsitedir({str(tmp_path)!r})\n"
        "patch = sys.modules.get('fibers.patch')\n"
        "print([patch.is_patched(name) for name in ('time.sleep', 'subprocess.Popen.wait')] if patch else None)\n"
    )
    for value, expected in (("0", "None\n"), ("-subprocess", "[True, False]\n")):
        child = run_python("-c", script.replace("Popen.wait", "Popen.communicate"), env={"FIBERS_PATCH": value})
        assert (child.stdout, child.stderr) == (expected, "")
    child = run_python("-c", script, env={"FIBERS_PATCH": "sokcet"})
    assert (child.returncode, child.stdout) == (1, "")
    assert child.stderr.startswith("FIBERS_PATCH='sokcet': there is nothing called 'sokcet' to patch; known are ")
