"""A progress bar on stderr: one line that redraws itself on a terminal, a line each tenth elsewhere."""

from __future__ import annotations

import sys
import time


class Progress:
    """`total` steps; time left is extrapolated from the steps done."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.tenth = 0
        self.begin = time.monotonic()
        self.live = sys.stderr.isatty()

    def show(self, what: str) -> None:
        """Draw, naming the step that begins."""
        share = self.done / self.total
        spent = time.monotonic() - self.begin
        left = f"{spent / share - spent:3.0f} s left" if self.done else ""
        if self.live:
            bar = "█" * int(share * 24) + "·" * (24 - int(share * 24))
            sys.stderr.write(f"\r\x1b[2K{bar} {share:4.0%} {left:10} {what[:44]}")
        elif int(share * 10) > self.tenth:
            self.tenth = int(share * 10)
            sys.stderr.write(f"{share:4.0%} {left}\n")
        sys.stderr.flush()

    def step(self) -> None:
        """One more done."""
        self.done += 1

    def close(self) -> None:
        """Leave the line."""
        if self.live:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
