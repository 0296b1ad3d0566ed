"""What asyncio costs on the loop of `fibers.asyncio`, beside asyncio's own.

`python -m bench.bridge [--rounds N] [--requests N] [--connections N,…]`.

Two tables. One: a TCP echo server in a process of its own, written with streams, with a protocol, with `sock_…` methods, on
both loops, in turns (bench/echo); CPU a request, and the ratio of the CPU, as the median of the ratios of the rounds.
The other: what it costs to go from one
world into the other, beside what it would cost to stay.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fibers
import fibers.asyncio
from bench.echo import run as echo
from bench.report import aligned

FLAVOURS = ("streams", "protocol", "sock")


def cpu_of(pid: int) -> int:
    """Nanoseconds of CPU that a process of one thread has had: the scheduler's own account, which has no ticks."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    except FileNotFoundError:
        raise RuntimeError("the CPU time of another process is not known here: this takes Linux's /proc") from None


def serve(contender: str, tools: echo.Tools, connections: int, requests: int) -> tuple[float, float]:
    """Some `requests` in all against a fresh server: microseconds of its CPU for each, and requests a second."""
    with echo.serving(contender, tools) as (port, pid):
        echo.bind_to_core(pid, -1)
        before = cpu_of(pid)
        found = echo.drive(tools, port, pid, connections, 0.0, 0.0, max(1, requests // connections))
        return (cpu_of(pid) - before) / found.requests / 1000, found.requests / found.seconds


def compare(tools: echo.Tools, flavour: str, connections: int, rounds: int, requests: int) -> list[str]:
    """One row: microseconds of CPU a request on each loop, the ratio, and that of requests a second."""
    plain, ours = [], []
    for _ in range(rounds):
        plain.append(serve(f"asyncio/{flavour}", tools, connections, requests))
        ours.append(serve(f"bridge/{flavour}", tools, connections, requests))
    return [
        f"{flavour}, {connections}",
        f"{statistics.median(cost for cost, _ in plain):.1f}",
        f"{statistics.median(cost for cost, _ in ours):.1f}",
        f"{statistics.median(b / a for (a, _), (b, _) in zip(plain, ours, strict=True)):.2f}×",
        f"{statistics.median(b / a for (_, a), (_, b) in zip(plain, ours, strict=True)):.2f}×",
    ]


# -- from one world into the other ----------------------------------------------------------------------------------


async def nothing() -> None:
    """The least that can be awaited."""


def per_call(function: Callable[[int], object], calls: int) -> float:
    """Microseconds of CPU that one of `calls` costs."""
    begin = time.process_time()
    function(calls)
    return (time.process_time() - begin) / calls * 1e6


def awaits(calls: int) -> None:
    """In a fiber: `await_` of a coroutine that does nothing."""
    for _ in range(calls):
        fibers.asyncio.await_(nothing())


def joins(calls: int) -> None:
    """In a fiber: the same with a fiber."""
    for _ in range(calls):
        fibers.spawn(int).join()


async def await_fibers(calls: int) -> None:
    """In a coroutine: `await fiber`."""
    for _ in range(calls):
        await fibers.spawn(int)


async def await_tasks(calls: int) -> None:
    """In a coroutine: the same with a task."""
    for _ in range(calls):
        await asyncio.create_task(nothing())


async def step(calls: int) -> None:
    """In a coroutine: one iteration of the loop after the other."""
    for _ in range(calls):
        await asyncio.sleep(0)


def crossing(rounds: int, calls: int) -> list[list[str]]:
    """The rows of the second table, measured in turns."""

    def plainly(function: Callable[[int], Any]) -> Callable[[int], object]:
        return lambda calls: asyncio.run(function(calls))

    def beside(function: Callable[[int], Any]) -> Callable[[int], object]:
        return lambda calls: fibers.asyncio.run(function(calls))

    pairs: list[tuple[str, Callable[[int], object], Callable[[int], object]]] = [
        ("await_ of a coroutine; joining a fiber", awaits, joins),
        ("await of a fiber; of a task in plain asyncio", beside(await_fibers), plainly(await_tasks)),
        ("await of a task; in plain asyncio", beside(await_tasks), plainly(await_tasks)),
        ("asyncio.sleep(0); in plain asyncio", beside(step), plainly(step)),
    ]
    rows = []
    for title, ours, other in pairs:
        found = [(per_call(ours, calls), per_call(other, calls)) for _ in range(rounds)]
        rows.append(
            [
                title,
                f"{statistics.median(a for a, _ in found):.2f}",
                f"{statistics.median(b for _, b in found):.2f}",
                f"{statistics.median(a / b for a, b in found):.2f}×",
            ]
        )
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.bridge", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of both loops in turn")
    parser.add_argument("--requests", type=int, default=20_000, help="that each echo server serves in a round")
    parser.add_argument("--connections", default="10,100", help="numbers of them, one after the other")
    parser.add_argument("--calls", type=int, default=20_000, help="of each kind in the second table; 0: no such table")
    options = parser.parse_args(arguments)
    if options.calls:
        rows = fibers.run(crossing, options.rounds, options.calls)
        print(aligned([["CPU a call, µs", "fibers.asyncio", "beside", "ratio"], *rows]))
        print()
    with tempfile.TemporaryDirectory() as folder:
        tools = echo.build(Path(folder))
        rows = [
            compare(tools, flavour, int(connections), options.rounds, options.requests)
            for flavour in FLAVOURS
            for connections in options.connections.split(",")
        ]
    print(aligned([["echo, CPU a request, µs", "asyncio", "fibers.asyncio", "ratio", "requests/s"], *rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
