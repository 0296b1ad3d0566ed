"""The server's process, seen from the clients': started, asked over a line, ended.

A child must import this very package, wherever it was found, hence PYTHONPATH. It is a process group of its own, so
that Ctrl-C reaches only the process that knows what to do about it, and that a server that hangs can be killed together
with the strace it runs under: killing strace alone would set it free. Its life hangs on the line (whoever closes it, or
dies, ends the server) and, in case it hangs and nobody is left to kill it, on an alarm.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ..eventloop import BACKEND
from ..io import socket
from .snapshot import Snapshot

_ROOT = str(Path(__file__).resolve().parents[2])

#: Seconds that the server gets for an answer, and for its end.
PATIENCE = 30.0


class ServerEndedError(RuntimeError):
    """The server's process ended, or never came up."""


def command(module: str, *arguments: object) -> list[str]:
    """A command line that runs a module of this folder."""
    return [sys.executable, "-P", "-m", f"fibers.measure.{module}", *map(str, arguments)]


def environment(backend: str) -> dict[str, str]:
    """The environment of a child that uses this event loop."""
    known = os.environ.get("PYTHONPATH")
    path = f"{_ROOT}{os.pathsep}{known}" if known else _ROOT
    return {**os.environ, "PYTHONPATH": path, "FIBERS_EVENTLOOP": backend}


class Server:
    """A context manager: the process lives inside, at most `lifetime` seconds. `prefix` is a command to run it under."""

    def __init__(
        self, lifetime: int, prefix: Sequence[str] = (), stderr: IO[bytes] | None = None, backend: str = BACKEND
    ) -> None:
        self._line, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            try:
                self._process = subprocess.Popen(
                    [*prefix, *command("server", fd, lifetime)],
                    stdin=subprocess.DEVNULL,
                    stderr=stderr,
                    pass_fds=[fd],
                    env=environment(backend),
                    process_group=0,
                )
            except BaseException:
                self._line.close()
                raise
        self._line.settimeout(PATIENCE)
        self._answers = self._line.makefile("r")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answers.close()
        self._line.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired as late:
            raise ServerEndedError("the server's process did not end and was killed") from late
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def port(self) -> int:
        """Where it listens on 127.0.0.1. To be called first, once. Raises ServerEndedError if it does not come up."""
        return int(self._answer())

    def now(self) -> Snapshot:
        """What it has done so far."""
        return self._ask("now")

    def end(self) -> Snapshot:
        """What it has done when all its connections are over: it waits for that."""
        return self._ask("end")

    def _ask(self, word: str) -> Snapshot:
        try:
            self._line.sendall(word.encode() + b"\n")
        except ConnectionError:
            pass  # then there is no answer either
        return Snapshot.read(self._answer())

    def _answer(self) -> str:
        try:
            line = self._answers.readline()
        except ConnectionError:
            line = ""
        if not line:
            raise ServerEndedError("the server's process has ended")
        return line
