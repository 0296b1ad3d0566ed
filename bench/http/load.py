"""The load: wrk, and the project's own client in C, on the load's core; and what a window of either has cost the server."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from bench.echo.run import ROOT, answer, compile_c
from bench.http.process import Running, cores

LIMIT = 60.0
"""Seconds beyond its window after which a load counts as hung."""


class Shape(NamedTuple):
    """What a load does."""

    path: str
    connections: int
    depth: int = 1  # requests in flight on each connection


class Tools(NamedTuple):
    """The programs that there are; "" for one that there is not."""

    wrk: str
    own: str

    @property
    def named(self) -> str:
        """What the cases are loaded by."""
        return "wrk" if self.wrk else "bench/limit/http.c"


def find_tools(folder: Path) -> Tools:
    """Raises RuntimeError, saying what to install, if there is no load at all."""
    own = compile_c("http", folder)
    tools = Tools(shutil.which("wrk") or "", str(own) if own else "")
    if not tools.wrk and not tools.own:
        raise RuntimeError("there is nothing to make load with: install wrk, or a C compiler")
    return tools


def window(
    running: Running, tools: Tools, shape: Shape, warm: float, seconds: float, own: bool = False
) -> dict[str, float]:
    """Figures of one window. RuntimeError if the load or the server has ended.

    cpu, user, system: microseconds a request; rate: requests a second; p50, p99: microseconds; failures: answers that were
    not 200, and connections that broke; reopened: connections that the server has ended between two answers (wrk takes
    them for whole). `own`: by the client that connects slowly, else by wrk where there is one.
    """
    if own or not tools.wrk:
        if not tools.own:
            raise RuntimeError("needs a C compiler")
        return figures(*with_own(running, tools.own, shape, warm, seconds))
    return figures(*with_wrk(running, tools.wrk, shape, seconds))


def with_wrk(running: Running, wrk: str, shape: Shape, seconds: float) -> tuple[dict[str, Any], float, float]:
    """wrk has no warm-up. The server has answered hundreds of times before."""
    options = ["-t1", f"-c{shape.connections}", f"-d{max(1, round(seconds))}s", "--timeout=10s"]
    url = f"http://127.0.0.1:{running.port}{shape.path}"
    script = str(ROOT / "bench" / "http" / "wrk.lua")
    command = [*cores()[1], wrk, *options, "-s", script, url, "--", str(shape.depth)]
    before = running.spent()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + LIMIT, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"wrk has not ended within {error.timeout:.0f} s") from error
    after = running.spent()
    if done.returncode != 0:
        raise RuntimeError(f"wrk: {(done.stderr or done.stdout).strip()}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    return result, after.user - before.user, after.system - before.system


def with_own(
    running: Running, own: str, shape: Shape, warm: float, seconds: float, requests: int = 0
) -> tuple[dict[str, Any], float, float]:
    """The window begins when all connections have been made, and have been busy for `warm` seconds."""
    numbers = (running.port, shape.path, shape.connections, shape.depth, warm, seconds, requests)
    command = [*cores()[1], own, *map(str, numbers)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            answer(process.stdout, "the load")
            before = running.spent()
            result: dict[str, Any] = json.loads(answer(process.stdout, "the load"))
            after = running.spent()
        except RuntimeError as error:
            process.kill()
            assert process.stderr is not None
            raise RuntimeError(process.stderr.read().strip() or str(error)) from None
        except BaseException:
            process.kill()
            raise
        process.communicate("\n")
    return result, after.user - before.user, after.system - before.system


def figures(result: dict[str, Any], user: float, system: float) -> dict[str, float]:
    """See `window`. RuntimeError if nothing was answered."""
    requests = result["requests"]
    if not requests:
        raise RuntimeError("no request was answered")
    return {
        "cpu": (user + system) / requests * 1e6,
        "user": user / requests * 1e6,
        "system": system / requests * 1e6,
        "rate": requests / result["seconds"],
        "p50": result["p50"],
        "p99": result["p99"],
        "failures": result["bad"] + result["broken"],
        "reopened": result.get("reopened", 0),
    }
