"""The command: its options, its phases in their order, its exit status.

1. Start the server's process, connect, send one message on each connection: everything has been used once.
2. Measure: a snapshot of the server, the load, a snapshot.
3. Close, and ask for the last snapshot when the server has seen all connections end.
4. Once more, short, with the server under strace, for the system calls alone.

The clients' process is this one. A process more would be fairer to the clients, but two are what the figures are about:
the server's.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from ..core.lifecycle import run as run_fibers
from ..eventloop import BACKEND
from ..measure import syscalls
from ..measure.limits import fit
from ..measure.load import Load
from ..measure.options import within
from ..measure.process import Server, ServerEndedError
from ..measure.progress import Progress
from ..measure.snapshot import Snapshot
from .report import Counted, Result, table

#: Seconds of load on the server under strace.
STRACE_SECONDS = 1.0
#: Seconds that a server gets beside those of the load: to start, to be connected to, to end.
BESIDES = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--connections", type=within(int, 1, 25_000), default=1000, metavar="N", help="at once (1000)")
    parser.add_argument("--seconds", type=within(float, 0.1, 3600.0), default=5.0, metavar="S", help="of load (5)")
    parser.add_argument(
        "--size", type=within(int, 1, 65_536), default=1024, metavar="BYTES", help="of a message (1024)"
    )


def run(options: argparse.Namespace) -> int:
    """Show it. Exit status 0, or 1 if it failed or was interrupted."""
    progress = Progress()
    try:
        connections, remark = fit(options.connections, BACKEND)
        if remark:
            progress.say(remark)
        result = run_fibers(_measure, progress, connections, options.seconds, options.size)
        progress.clear()
        print(table(result))
    except KeyboardInterrupt:
        progress.say("interrupted")
        return 1
    except (OSError, ValueError, ServerEndedError) as error:
        progress.say(f"the demo failed: {error}")
        return 1
    return 0


def _measure(progress: Progress, connections: int, seconds: float, size: int) -> Result:
    progress.show("starting the server")
    with Server(BESIDES + int(seconds)) as server:
        load, before, after = _drive(server, progress, "", connections, seconds, size)
        closed = server.end()
    counted = _count(progress, connections, min(seconds, STRACE_SECONDS), size)
    return Result(
        BACKEND, connections, size, load.requests, load.seconds, load.latencies, before, after, closed, counted
    )


def _drive(
    server: Server, progress: Progress, how: str, connections: int, seconds: float, size: int
) -> tuple[Load, Snapshot, Snapshot]:
    """A server under load; the snapshots enclose it. All connections are closed again."""
    load = Load(server.port(), connections, size)

    def connecting(made: int) -> None:
        progress.show("connecting" + how, f"{made:,} of {connections:,}")

    def talking(left: float, requests: int) -> None:
        spent = seconds - left
        rate = f"{requests / spent:,.0f} requests/s" if requests else ""
        progress.show(f"{connections:,} connections talking" + how, f"{rate}  {left:.0f} s left")

    try:
        load.connect(connecting)
        before = server.now()
        load.talk(seconds, talking)
        after = server.now()
    finally:
        load.close()
    return load, before, after


def _count(progress: Progress, connections: int, seconds: float, size: int) -> Counted:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "calls")
        prefix = syscalls.command(log)
        if prefix is None:
            return Counted(Counter(), 0, "strace is not installed")
        try:
            with open(Path(folder, "stderr"), "w+b") as stderr, Server(BESIDES, prefix, stderr) as server:
                load, _, _ = _drive(server, progress, " (under strace)", connections, seconds, size)
        except (ServerEndedError, OSError) as error:
            said = Path(folder, "stderr").read_text(errors="replace").splitlines()
            return Counted(Counter(), 0, f"strace failed: {said[0] if said else error}")
        with open(log, errors="replace") as lines:
            calls = syscalls.count(lines)
    if calls is None:
        return Counted(Counter(), 0, "strace's log has gaps")
    return Counted(calls, load.requests)
