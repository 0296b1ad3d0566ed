"""A server as a group of processes: started on one core, asked what it costs, killed.

Some servers are one process and some have a master beside their workers, so what a server costs is summed over its group,
read in /proc. It has a session of its own, hence its group is all that it has started.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from bench.echo.run import ROOT
from bench.http.apps import PATHS
from bench.http.servers import Place, Server

PATIENCE = 15.0
"""Seconds that a server has to answer for the first time."""
TICK = 1.0 / os.sysconf("SC_CLK_TCK")


class Spent(NamedTuple):
    """CPU seconds of a group so far."""

    user: float
    system: float


class Memory(NamedTuple):
    """Bytes of a group: `private` and its share of what it shares (PSS), and resident (RSS)."""

    pss: int
    rss: int


class Running:
    """A server that answers. `group` is the process group's id."""

    def __init__(self, name: str, group: int, port: int) -> None:
        self.name = name
        self.group = group
        self.port = port

    def processes(self) -> list[int]:
        """Those that live."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                fields = stat_of(int(entry))
                if fields and int(fields[2]) == self.group:
                    found.append(int(entry))
        return found

    def spent(self) -> Spent:
        """RuntimeError if nobody lives: it has crashed."""
        user = system = 0
        living = 0
        for pid in self.processes():
            fields = stat_of(pid)
            if fields:
                living += 1
                user += int(fields[11])
                system += int(fields[12])
        if not living:
            raise RuntimeError(f"{self.name} has ended")
        return Spent(user * TICK, system * TICK)

    def memory(self) -> Memory:
        """Now."""
        sums = {"Pss": 0, "Rss": 0}
        for pid in self.processes():
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
            except OSError:
                continue
            for line in text.splitlines()[1:]:
                name, _, value = line.partition(":")
                if name in sums:
                    sums[name] += int(value.split()[0]) * 1024
        return Memory(sums["Pss"], sums["Rss"])

    def check(self, path: str, times: int = 1) -> None:
        """Ask for a path on one connection; RuntimeError if an answer is not what it should be."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            for _ in range(times):
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200 or body != PATHS[path]:
                    raise RuntimeError(f"{self.name} has answered {path} with {answer.status} and {len(body)} bytes")
        except http.client.HTTPException as error:
            raise RuntimeError(f"{self.name} has answered {path} with what is no HTTP: {error!r}") from error
        finally:
            connection.close()


def stat_of(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name; [] if it has gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def cores() -> tuple[list[str], list[str]]:
    """Prefixes of commands: for the server's core, and for the load's. Empty where there is one core, or no taskset."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        return [], []
    return ["taskset", "-c", str(usable[-1])], ["taskset", "-c", str(usable[0])]


def free_port() -> int:
    """A port that nobody listens on. (Somebody may take it before the server does: then that fails, and says so.)"""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def serving(server: Server, folder: Path, threads: int, prefix: Sequence[str] = ()) -> Iterator[Running]:
    """A running server. RuntimeError with its last words if it does not come up. `prefix`: a command to run it under."""
    place = Place(free_port(), folder, threads)
    command = [*prefix, *cores()[0], *server.command(place)]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            running = Running(server.name, process.pid, place.port)
            limit = time.monotonic() + PATIENCE
            while True:
                try:
                    running.check("/")
                    break
                except ConnectionRefusedError:  # it does not listen yet
                    if process.poll() is not None or time.monotonic() > limit:
                        output.seek(0)
                        words = output.read().strip().splitlines() or ["nothing was said"]
                        raise RuntimeError(f"{server.name} did not come up: {words[-1]}") from None
                    time.sleep(0.02)
            yield running
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
