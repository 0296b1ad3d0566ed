"""Where the package runs, and what it says elsewhere."""

from support.once import once
from support.process import run_python

pytestmark = once


def test_importing_on_windows_says_that_posix_is_needed() -> None:
    child = run_python("-c", "import sys; sys.platform = 'win32'; import fibers")
    assert child.returncode == 1
    assert child.stderr.splitlines()[-1] == (
        "ImportError: fibers runs on POSIX systems only: its event loops have no Windows backend"
    )
