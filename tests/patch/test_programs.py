"""`python -m fibers run`: a program runs as the plain interpreter runs it, and on fibers.

Each program is run twice, by both, and what they print, how they fail and how they end is compared.
"""

import signal
from pathlib import Path

import pytest
from support.once import once
from support.process import run_python

from fibers.patch import startup

GOOD = """
import sys, threading
print(sys.argv[1:], __name__, __builtins__, __doc__, __spec__ and __spec__.name, sys.path[0])
threading.Thread(target=lambda: 1 / 0, name="t").start()
"""
HOOK = """
import sys, traceback
sys.excepthook = lambda kind, error, tb: print(kind, len(traceback.extract_tb(tb)))
raise OSError
"""
PROGRAMS = {
    "good": GOOD,
    "error": "def f():\n    1 / 0\n\n\nf()\n",
    "syntax": "x = (\n",
    "message": "raise SystemExit('that was it')\n",
    "interrupt": "raise KeyboardInterrupt\n",
    "hook": HOOK,
}


@once
@pytest.mark.parametrize("name", [*PROGRAMS, "-m good", "-m interrupt", "missing", "-m missing"])
def test_ends_as_in_the_plain_interpreter(tmp_path: Path, name: str) -> None:
    module, _, program = name.rpartition(" ")
    if program in PROGRAMS:
        (tmp_path / f"{program}.py").write_text(PROGRAMS[program])
    command = [module, program] if module else [f"{program}.py"]
    plain = run_python(*command, "--a", "b", cwd=tmp_path)
    ours = run_python("-m", "fibers", "run", *command, "--a", "b", cwd=tmp_path)
    assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    if program == "interrupt":
        assert plain.returncode == -signal.SIGINT


def test_options_come_before_the_program_and_its_own_after_it(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, fibers.patch, fibers.eventloop as e, functools, time\n"
        "print(sys.argv[1:], fibers.patch.is_patched('time.sleep'), fibers.patch.is_patched('select.select'), e.BACKEND)\n"
    )
    child = run_python(
        "-m", "fibers", "run", "--backend", "select", "--no-patch", "time", "--verify", program, "--backend", "x"
    )
    assert (child.stdout, child.returncode) == ("['--backend', 'x'] False True select\n", 0)
    assert all(line.startswith("python -m fibers run: escaped: ") for line in child.stderr.splitlines())


@once
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [([], "a script is needed, or -m and a module"), (["--no-patch", "x", "p.py"], "invalid choice: 'x'")],
)
def test_wrong_command_lines(arguments: list[str], complaint: str) -> None:
    child = run_python("-m", "fibers", "run", *arguments)
    assert child.returncode == 2
    assert complaint in child.stderr


def test_fibers_patch_is_heeded_where_its_pth_is(tmp_path: Path) -> None:
    (tmp_path / startup.NAME).write_text(startup.LINE)
    script = (
        f"import site, sys; site.addsitedir({str(tmp_path)!r})\n"
        "patch = sys.modules.get('fibers.patch')\n"
        "print([patch.is_patched(name) for name in ('time.sleep', 'subprocess.Popen.wait')] if patch else None)\n"
    )
    for value, expected in (("", "None\n"), ("-subprocess", "[True, False]\n"), ("time", "[True, False]\n")):
        child = run_python("-c", script.replace("Popen.wait", "Popen.communicate"), env={"FIBERS_PATCH": value})
        assert (child.stdout, child.stderr) == (expected, "")
    child = run_python("-c", script, env={"FIBERS_PATCH": "sokcet"})
    assert (child.returncode, child.stdout) == (1, "")
    assert child.stderr.startswith("FIBERS_PATCH='sokcet': there is nothing called 'sokcet' to patch; known are ")
