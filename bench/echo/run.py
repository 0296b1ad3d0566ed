"""One echo measurement: a fresh server, a load, the server's CPU clock at both ends of the window.

The server's clock is read from outside, in /proc, at the moments the load generator announces -> the same
method serves every runtime and the C loop, disturbs none, and start-up, connecting and closing are not
charged. /proc counts in hundredths of a second: windows are long against that. Where there is no /proc, the
CPU of the server is not known and None.

With two cores or more, the server is bound to one and the load to another: "one core for the server" for
everybody.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from bench import material
from bench.runtimes import C_LOOP

ROOT = Path(__file__).resolve().parents[2]
PYTHON = (sys.executable, "-W", "ignore", "-m")


class Tools(NamedTuple):
    """Commands: the load generator, and the C server if it could be built."""

    load: tuple[str, ...]
    server: tuple[str, ...] | None
    load_language: str


class Echo(NamedTuple):
    """One window. `user` and `system` are seconds of server CPU or None; latencies are in microseconds."""

    requests: int
    seconds: float
    user: float | None
    system: float | None
    p50: float
    p99: float
    p999: float


def build(folder: Path) -> Tools:
    """Compile the C programs into `folder`; the Python generator stands in for what does not compile."""
    paths = {name: compile_c(name, folder) for name in ("load", "echo")}
    load, echo = paths["load"], paths["echo"]
    server = (str(echo),) if echo else None
    if load:
        return Tools((str(load),), server, "C")
    return Tools((*PYTHON, "bench.echo.load"), server, "Python")


def compile_c(name: str, folder: Path) -> Path | None:
    """The program made of `bench/limit/<name>.c`, or None without a compiler or without epoll."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None
    source = ROOT / "bench" / "limit" / f"{name}.c"
    target = folder / name
    done = subprocess.run([compiler, "-O2", "-o", str(target), str(source)], capture_output=True, check=False)
    return target if done.returncode == 0 else None


def bind_to_core(pid: int, index: int) -> None:
    """Bind a process to one of the cores we may use, when there are at least two."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            os.sched_setaffinity(pid, {cores[index]})


def cpu_of(pid: int) -> tuple[float, float] | None:
    """(user, system) CPU seconds of a running process, all threads; None without /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return None
    fields = text.rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / tick, int(fields[12]) / tick


def answer(stream: IO[str] | None, who: str) -> str:
    """The next line of a child; RuntimeError if it ended instead."""
    assert stream is not None
    line = stream.readline()
    if not line:
        raise RuntimeError(f"{who} ended early")
    return line


@contextmanager
def serving(contender: str, tools: Tools, prefix: Sequence[str] = ()) -> Iterator[tuple[int, int]]:
    """A running server as (port, pid). `prefix` is a command to run it under, strace for example."""
    if contender == C_LOOP:
        if tools.server is None:
            raise RuntimeError("the C server needs a C compiler and epoll")
        command: Sequence[str] = tools.server
    else:
        command = (*PYTHON, "bench.echo.server", contender)
    process = subprocess.Popen([*prefix, *command], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        address: dict[str, int] = json.loads(answer(process.stdout, f"the {contender} server"))
        yield address["port"], address["pid"]
        os.kill(address["pid"], 9)
        process.wait(timeout=10)
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def drive(tools: Tools, port: int, pid: int, connections: int, warm: float, seconds: float, requests: int = 0) -> Echo:
    """Load a server.

    For `seconds` after `warm` seconds, or exactly `requests` on each connection if that is not 0.
    """
    numbers = (port, connections, material.ECHO_MESSAGE, warm, seconds, requests)
    command = [*tools.load, *map(str, numbers)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            bind_to_core(process.pid, 0)
            answer(process.stdout, "the load generator")
            before = cpu_of(pid)
            result: dict[str, Any] = json.loads(answer(process.stdout, "the load generator"))
            after = cpu_of(pid)
        except BaseException:
            process.kill()
            raise
        process.communicate("\n")
    user = after[0] - before[0] if before and after else None
    system = after[1] - before[1] if before and after else None
    return Echo(user=user, system=system, **result)


def measure(contender: str, tools: Tools, connections: int, warm: float, seconds: float) -> Echo:
    """One window against a fresh server."""
    with serving(contender, tools) as (port, pid):
        bind_to_core(pid, -1)
        return drive(tools, port, pid, connections, warm, seconds)
