"""System calls of a TCP echo server, counted by strace.

`python -m bench.syscalls [--connections N] [--requests N] [contender …]`.

The load sends a fixed number of requests on each connection, so that calls can be divided by requests and
by connections exactly. strace writes every call instead of a summary (`-c`), because a summary cannot tell
an `epoll_ctl` ADD from a MOD, nor the calls of start-up from those of the load: counting begins with the
first accept and ends with the last answer, before any connection is closed, then goes on with the closing
apart. libuv (uvloop) hands its ADDs to the kernel through an io_uring when there is one: no `epoll_ctl` is
seen then, only `io_uring_enter`. `count` is the function for tests.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from bench import material
from bench.echo.run import Tools, build, drive, serving
from bench.report import aligned
from bench.runtimes import C_LOOP, ECHO_FULL

RECEIVES = frozenset({"recvfrom", "recvmsg", "recvmmsg", "read", "readv"})
SENDS = frozenset({"sendto", "sendmsg", "sendmmsg", "write", "writev"})
WAITS = frozenset({"epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6"})
ACCEPTS = frozenset({"accept", "accept4"})
TRACED = ",".join(sorted(RECEIVES | SENDS | WAITS | ACCEPTS | {"epoll_ctl", "io_uring_enter", "close"}))
CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)")
CONTROL = re.compile(r"EPOLL_CTL_(ADD|MOD|DEL)")


class Counts(NamedTuple):
    """Calls between the first accept and the last answer.

    `receives` are all receiving calls, `failed_receives` those among them that found nothing (EAGAIN).
    `adds`, `modifies` and `deletes` are `epoll_ctl` calls until the connections have been closed,
    `deletes_early` those DELs that came before the last answer. `rings` are calls of `io_uring_enter`.
    """

    contender: str
    connections: int
    requests: int
    receives: int
    failed_receives: int
    sends: int
    waits: int
    accepts: int
    adds: int
    modifies: int
    deletes_early: int
    deletes: int
    rings: int

    def per_request(self, calls: int) -> float:
        """`calls` divided by the requests."""
        return calls / self.requests

    def per_connection(self, calls: int) -> float:
        """`calls` divided by the connections."""
        return calls / self.connections


def count(contender: str, tools: Tools, connections: int, requests: int) -> Counts:
    """Run the server of `contender` under strace with `requests` messages on each connection.

    RuntimeError if there is no strace or it may not trace here.
    """
    if shutil.which("strace") is None:
        raise RuntimeError("strace is not installed")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "calls"
        prefix = (
            "strace",
            "-f",
            "-qq",
            "-s",
            "0",
            "-e",
            f"trace={TRACED}",
            "-e",
            "signal=none",
            "-o",
            str(log),
        )
        with serving(contender, tools, prefix) as (port, pid):
            drive(tools, port, pid, connections, 0.0, 0.0, requests)
            wait_for_closes(log, connections)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return tally(lines, contender, connections, connections * requests)


def wait_for_closes(log: Path, connections: int) -> None:
    """Until the server has seen the end of every connection in the log, or ten seconds are over."""
    limit = time.monotonic() + 10.0
    while time.monotonic() < limit:
        text = log.read_text(encoding="utf-8", errors="replace")
        if text[max(0, text.find("accept")) :].count("close(") >= connections:
            return
        time.sleep(0.05)


def tally(lines: list[str], contender: str, connections: int, requests: int) -> Counts:
    """Count the calls of a log in strace's format.

    Loading ends with the send that answers the last request.
    """
    found: Counter[str] = Counter()
    began = ended = False
    for line in lines:
        match = CALL.match(line)
        if match is None:
            continue
        name, rest = match.groups()
        began = began or name in ACCEPTS
        if not began:
            continue
        if name == "epoll_ctl":
            operation = CONTROL.search(rest)
            kind = operation.group(1) if operation else "?"
            found[kind] += 1
            found[kind + " early"] += not ended
        elif not ended:
            found["receive"] += name in RECEIVES
            found["nothing"] += name in RECEIVES and "EAGAIN" in rest
            found["send"] += name in SENDS
            found["wait"] += name in WAITS
            found["ring"] += name == "io_uring_enter"
            found["accept"] += name in ACCEPTS and "= -1" not in rest
            ended = found["send"] >= requests
    return Counts(
        contender=contender,
        connections=connections,
        requests=requests,
        receives=found["receive"],
        failed_receives=found["nothing"],
        sends=found["send"],
        waits=found["wait"],
        accepts=found["accept"],
        adds=found["ADD"],
        modifies=found["MOD"],
        deletes_early=found["DEL early"],
        deletes=found["DEL"],
        rings=found["ring"],
    )


def table(counts: list[Counts]) -> str:
    """Per request, then per connection."""
    head = [
        "",
        "recv/req",
        "empty recv/req",
        "send/req",
        "wait/req",
        "ADD/conn",
        "MOD/conn",
        "DEL/conn",
        "early DEL/conn",
        "ring/conn",
    ]
    rows = [head]
    for found in counts:
        figures = (found.receives, found.failed_receives, found.sends, found.waits)
        row = [found.contender, *(f"{found.per_request(calls):.3f}" for calls in figures)]
        controls = (found.adds, found.modifies, found.deletes, found.deletes_early, found.rings)
        row += [f"{found.per_connection(calls):.2f}" for calls in controls]
        rows.append(row)
    return aligned(rows)


def main() -> None:
    """Count for the contenders named, by default for all of the echo table."""
    parser = argparse.ArgumentParser(prog="python -m bench.syscalls", description="system calls a request, by strace")
    parser.add_argument("contenders", nargs="*", default=ECHO_FULL, metavar="contender", help=", ".join(ECHO_FULL))
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--requests", type=int, default=50, help="on each connection")
    options = parser.parse_args()
    material.raise_fd_limit()
    with tempfile.TemporaryDirectory() as folder:
        tools = build(Path(folder))
        chosen = [name for name in options.contenders if name != C_LOOP or tools.server]
        print(table([count(name, tools, options.connections, options.requests) for name in chosen]))


if __name__ == "__main__":
    main()
