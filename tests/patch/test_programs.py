"""`python -m fibers run`: a program runs as the plain interpreter runs it, and on fibers.

Each program is run twice, by both, and what they print, how they fail and how they end is compared.
"""

import signal
from pathlib import Path

import pytest
from support.process import run_python

ARGUMENTS = """
import sys
print(sys.argv[1:], __name__, __builtins__, __doc__, __spec__ and __spec__.name, sys.path[0])
"""
HOOK = """
import sys, traceback
sys.excepthook = lambda kind, error, tb: print(kind, len(traceback.extract_tb(tb)))
raise OSError
"""
PROGRAMS = {
    "arguments": ARGUMENTS,
    "error": "def f():\n    1 / 0\n\n\nf()\n",
    "syntax": "x = (\n",
    "status": "import sys\nsys.exit(7)\n",
    "message": "raise SystemExit('that was it')\n",
    "interrupt": "raise KeyboardInterrupt\n",
    "thread": "import threading\nthreading.Thread(target=lambda: 1 / 0, name='t').start()\n",
    "hook": HOOK,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_ends_as_in_the_plain_interpreter(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text(PROGRAMS[name])
    for program in ([f"{name}.py"], ["-m", name]):
        plain = run_python(*program, "--a", "b", cwd=tmp_path)
        ours = run_python("-m", "fibers", "run", *program, "--a", "b", cwd=tmp_path)
        assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    if name == "interrupt":
        assert plain.returncode == -signal.SIGINT
