"""A server as a program of its own, for the tests of what signals, forks and limits do to it.

The program gets NOTIFY_SOCKET, as from systemd, so that a test can wait for what it says: no test has to guess when it is
ready. What it prints are lines for the test; its log goes to stderr.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.process import environment

#: Seconds after which a test gives up.
LIMIT = 30.0

_HEAD = """
import contextlib, logging, os, signal, socket, sys, time
import fibers
from fibers.server import Report, TCPServer, UnixServer, UDPServer
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # in one piece, from whichever process
def echo(sock, address):
    while data := sock.recv(65_536):
        sock.sendall(data)
def pid(sock, address):
    sock.sendall(b"%d" % os.getpid())
"""


class Program:
    """A block in which the program runs; it is killed at the end, with all its processes."""

    def __init__(self, folder: Path, code: str, env: Mapping[str, str] | None = None) -> None:
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told.bind(str(folder / "told"))
        self._told.settimeout(LIMIT)
        self._heard: list[str] = []
        path = folder / "program.py"
        path.write_text(_HEAD + code)
        self._log = (folder / "log").open("w+")
        self.child = subprocess.Popen(
            [sys.executable, path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment({"NOTIFY_SOCKET": str(folder / "told"), **(env or {})}),
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self.child.pid

    def told(self, state: str) -> str:
        """Wait until systemd is told that, and return the message."""
        while True:
            message = self._told.recv(4096).decode()
            if state in message.split("\n"):
                return message

    def line(self) -> str:
        """The next line that it prints; "" at the end."""
        assert self.child.stdout is not None
        return self.child.stdout.readline().decode().rstrip("\n")

    def signal(self, number: int) -> None:
        self.child.send_signal(number)

    def end(self) -> int:
        """Wait for its end; the exit status."""
        return self.child.wait(LIMIT)

    def log(self) -> str:
        """What it has logged so far."""
        self._log.flush()
        self._log.seek(0)
        return self._log.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait(LIMIT)
        assert self.child.stdout is not None
        self.child.stdout.close()
        self._told.close()
        if error is not None:
            sys.stderr.write(self.log())
        self._log.close()


def connect(address: Any) -> socket.socket:
    """A plain blocking client."""
    if isinstance(address, str):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(LIMIT)
        client.connect(address)
        return client
    return socket.create_connection(address, timeout=LIMIT)


def ask(address: Any, data: bytes = b"") -> bytes:
    """Connect, send, and return all that comes until the end."""
    with connect(address) as client:
        if data:
            client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while more := client.recv(65_536):
            answer += more
        return answer
