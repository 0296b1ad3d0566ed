"""How late a loop is while files are read and copied beside it.

`python -m bench.files [--size MIB] [--rounds N] [--seconds S] [contender …]`.

A task sleeps a millisecond, again and again, and notes how late it wakes up. Nothing else runs (idle), or a file is read in
pieces of 1 MiB, read line by line, copied by reading and writing, copied by the library's own call. What is printed are
percentiles of the lateness over all rounds, and how fast the file work was. The contenders run in processes of their own,
one after the other, round by round, as a shared machine drifts. The file is in the page cache after the first pass; with
two cores the worker thread and the loop have one each, and what they fight for is the interpreter.

asyncio has no files: its users write `to_thread(file.readinto, buffer)`, and so it is done here. trio has `open_file`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.report import aligned

PIECE = 1 << 20
PAUSE = 0.001
#: Lines are work for the interpreter itself: so much of the size is read as lines.
LINES_SHARE = 8
PHASES = ("idle", "read", "lines", "copy", "copyfile")
PERCENTILES = (50.0, 99.0, 99.9)


class Meter:
    """Collects how late (seconds) each wake-up is, and how long each phase took."""

    def __init__(self) -> None:
        self.lags: dict[str, list[float]] = {phase: [] for phase in PHASES}
        self.took: dict[str, float] = {}
        self.phase = "idle"
        self.ended = False

    def begin(self, phase: str) -> None:
        self.phase = phase
        self.took[phase] = time.perf_counter()

    def end(self) -> None:
        self.took[self.phase] = time.perf_counter() - self.took[self.phase]

    def note(self, due: float) -> None:
        self.lags[self.phase].append(time.perf_counter() - due)


def run_fibers(source: Path, target: Path, lines: Path, seconds: float, meter: Meter) -> None:
    import fibers
    from fibers import io

    def measure() -> None:
        while not meter.ended:
            due = time.perf_counter() + PAUSE
            fibers.sleep(PAUSE)
            meter.note(due)

    def read() -> None:
        buffer = bytearray(PIECE)
        with io.open(source, "rb") as file:
            while file.readinto(buffer):
                pass

    def read_lines() -> None:
        with io.open(lines, encoding="ascii") as file:
            for _ in file:
                pass

    def copy() -> None:
        with io.open(source, "rb") as file, io.open(target, "wb") as out:
            while data := file.read(PIECE):
                out.write(data)

    def main() -> None:
        meter.begin("idle")
        measuring = fibers.spawn(measure)
        fibers.sleep(seconds)
        meter.end()
        works: dict[str, Callable[[], object]] = {
            "read": read, "lines": read_lines, "copy": copy, "copyfile": lambda: io.copyfile(source, target),
        }  # fmt: skip
        for phase, work in works.items():
            meter.begin(phase)
            work()
            meter.end()
        meter.ended = True
        measuring.join()

    fibers.run(main)


def run_asyncio(source: Path, target: Path, lines: Path, seconds: float, meter: Meter) -> None:
    threaded = asyncio.to_thread

    async def measure() -> None:
        while not meter.ended:
            due = time.perf_counter() + PAUSE
            await asyncio.sleep(PAUSE)
            meter.note(due)

    async def read() -> None:
        buffer = bytearray(PIECE)
        with open(source, "rb", buffering=0) as file:
            while await threaded(file.readinto, buffer):
                pass

    async def read_lines() -> None:
        with open(lines, encoding="ascii") as file:
            while some := await threaded(file.readlines, 131_072):
                for _ in some:
                    pass

    async def copy() -> None:
        with open(source, "rb") as file, open(target, "wb") as out:
            while data := await threaded(file.read, PIECE):
                await threaded(out.write, data)

    async def main() -> None:
        meter.begin("idle")
        measuring = asyncio.create_task(measure())
        await asyncio.sleep(seconds)
        meter.end()
        works: dict[str, Callable[[], Any]] = {
            "read": read, "lines": read_lines, "copy": copy, "copyfile": lambda: threaded(shutil.copyfile, source, target),
        }  # fmt: skip
        for phase, work in works.items():
            meter.begin(phase)
            await work()
            meter.end()
        meter.ended = True
        await measuring

    asyncio.run(main())


def run_trio(source: Path, target: Path, lines: Path, seconds: float, meter: Meter) -> None:
    import trio

    async def measure() -> None:
        while not meter.ended:
            due = time.perf_counter() + PAUSE
            await trio.sleep(PAUSE)
            meter.note(due)

    async def read() -> None:
        buffer = bytearray(PIECE)
        async with await trio.open_file(source, "rb") as file:
            while await file.readinto(buffer):
                pass

    async def read_lines() -> None:
        async with await trio.open_file(lines, encoding="ascii") as file:
            while some := await file.readlines(131_072):
                for _ in some:
                    pass

    async def copy() -> None:
        async with await trio.open_file(source, "rb") as file, await trio.open_file(target, "wb") as out:
            while data := await file.read(PIECE):
                await out.write(data)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            meter.begin("idle")
            nursery.start_soon(measure)
            await trio.sleep(seconds)
            meter.end()
            works: dict[str, Callable[[], Any]] = {
                "read": read, "lines": read_lines, "copy": copy,
                "copyfile": lambda: trio.to_thread.run_sync(shutil.copyfile, source, target),
            }  # fmt: skip
            for phase, work in works.items():
                meter.begin(phase)
                await work()
                meter.end()
            meter.ended = True

    trio.run(main)


CONTENDERS: dict[str, Callable[[Path, Path, Path, float, Meter], None]] = {
    "fibers": run_fibers,
    "asyncio": run_asyncio,
    "trio": run_trio,
}


def percentile(values: list[float], percent: float) -> float:
    """The value that `percent` of `values` do not exceed; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


def make_files(folder: Path, size: int) -> None:
    """A file of `size` bytes, and one of lines."""
    block = os.urandom(PIECE)
    with open(folder / "source", "wb") as out:
        for _ in range(size // PIECE):
            out.write(block)
    with open(folder / "lines", "w", encoding="ascii") as text:
        for number in range(size // LINES_SHARE // 64):
            text.write(f"{number:063d}\n")


def measure(contenders: list[str], size: int, rounds: int, seconds: float) -> dict[str, dict[str, Any]]:
    """By contender: `lags` (seconds, by phase) and `took` (seconds, by phase, the fastest round). `size` in bytes."""
    found: dict[str, dict[str, Any]] = {
        name: {"lags": {phase: [] for phase in PHASES}, "took": {}} for name in contenders
    }
    with tempfile.TemporaryDirectory(prefix="fibers-bench-") as folder:
        make_files(Path(folder), size)
        for _ in range(rounds):
            for name in contenders:
                command = [sys.executable, "-m", "bench.files", "--child", name, folder, "--seconds", str(seconds)]
                result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
                for phase in PHASES:
                    found[name]["lags"][phase] += result["lags"][phase]
                    took = found[name]["took"]
                    took[phase] = min(result["took"][phase], took.get(phase, 1e9))
    return found


def table(found: dict[str, dict[str, Any]], size: int) -> list[list[str]]:
    """Rows for people."""
    rows = [["contender", "phase", *(f"p{percent:g} ms" for percent in PERCENTILES), "max ms", "wake-ups", "MiB/s"]]
    for name, result in found.items():
        for phase in PHASES:
            lags = result["lags"][phase]
            bulk = size // LINES_SHARE if phase == "lines" else size
            speed = "" if phase == "idle" else f"{bulk / result['took'][phase] / (1 << 20):,.0f}"
            figures = [f"{percentile(lags, percent) * 1000:.2f}" for percent in PERCENTILES]
            rows.append([name, phase, *figures, f"{max(lags, default=0) * 1000:.2f}", str(len(lags)), speed])
    return rows


def available(name: str) -> bool:
    """Can this contender run here?"""
    return (
        name != "trio"
        or subprocess.run([sys.executable, "-c", "import trio"], stderr=subprocess.DEVNULL).returncode == 0
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.files", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("contenders", nargs="*", metavar="contender", help=f"of {', '.join(CONTENDERS)} (default: all)")
    parser.add_argument("--size", type=int, default=1024, help="of the file, MiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of idleness")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        name, folder = options.child[0], Path(options.child[1])
        meter = Meter()
        CONTENDERS[name](folder / "source", folder / "target", folder / "lines", options.seconds, meter)
        print(json.dumps({"lags": meter.lags, "took": meter.took}))
        return 0
    unknown = [name for name in options.contenders if name not in CONTENDERS]
    if unknown:
        parser.error(f"unknown contender {unknown[0]!r}: known are {', '.join(CONTENDERS)}")
    contenders = options.contenders or [name for name in CONTENDERS if available(name)]
    size = options.size << 20
    found = measure(contenders, size, options.rounds, options.seconds)
    print(aligned(table(found, size)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
