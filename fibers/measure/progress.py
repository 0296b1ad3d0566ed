"""The line on stderr: redrawn in place on a terminal, else a plain line now and then. Never on stdout, so that
`python -m fibers demo > file` keeps the table alone."""

import shutil
import sys
from time import monotonic

#: Seconds between two plain lines of one phase.
PERIOD = 1.0


class Progress:
    """One for each run. `plain`: say it also where stderr is no terminal."""

    def __init__(self, plain: bool = True) -> None:
        self._live = sys.stderr.isatty()
        self._plain = plain
        self._phase = ""
        self._next = 0.0

    def show(self, phase: str, detail: str = "") -> None:
        """Say where things stand. A new phase is said at once, news of the same one with moderation."""
        text = f"{phase}  {detail}".rstrip()
        if self._live:
            columns = shutil.get_terminal_size().columns
            self._write(f"\r\x1b[2K{text[: columns - 1]}")
        elif self._plain and (phase != self._phase or monotonic() >= self._next):
            self._next = monotonic() + PERIOD
            self._write(text + "\n")
        self._phase = phase

    def say(self, text: str) -> None:
        """Something that stays."""
        self.clear()
        self._write(text + "\n")

    def clear(self) -> None:
        """Leave the terminal's line empty."""
        if self._live:
            self._write("\r\x1b[2K")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
