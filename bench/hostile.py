"""`python -m bench.hostile`: what clients that mean harm cost those that do not.

One server process, `fibers.http` with one loop; good clients (16 keep-alive connections, request after request) in a second
process; attackers (attacks.py) in a third. For each kind of attack, turn by turn, in every round:

    alone     the good clients alone
    hostile   the attackers alone, at their steady pace
    both      all of them

The attack's own work (a flood asks for something, after all) is not what the good clients cost. So their cost beside it is

    (CPU of both - CPU of hostile in the same time) / requests of the good ones

and the ratio of that to the cost alone is what the server lets them pay for others. The goal is 1.2 at most. A busy server
does more at each turn, so an attack costs less beside others than alone, and this ratio may be below 1. `gross` is the one
with nothing taken off, as if the good clients paid for the whole attack: the truth is between the two. Medians of the
rounds; CPU is the server process's. It ends with status 1 if a ratio is above `--limit`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from statistics import median

import fibers
from bench import attacks, machine, material
from bench.echo.run import PYTHON, ROOT
from fibers.http import HttpServer, Server
from fibers.io import Stream

#: Connections of the good clients.
GOOD = 16


def service() -> Server:
    """What is asked for."""
    server = Server()
    server.route("/large")(lambda request: bytes(1_000_000))
    server.route("/body", methods=["POST"])(lambda request: str(len(request.read())))
    server.route("/cpu")(lambda request: repr(time.process_time()))
    server.otherwise(lambda request: "hello")
    return server


def serve() -> None:
    """The server's process: prints its port, and serves until it is killed."""
    with HttpServer(service(), ("127.0.0.1", 0), factor=1e9) as server:
        print(server.address[1], flush=True)
        fibers.Event().wait()


def be_good(port: int, seconds: float) -> None:
    """The good clients' process: connects, prints a line, waits for one, works, and prints requests and latencies (s)."""
    took: list[float] = []
    streams = [attacks.connect(port) for _ in range(GOOD)]
    print("connected", flush=True)
    sys.stdin.readline()
    end = time.perf_counter() + seconds

    def client(connected: Stream) -> None:
        with connected as stream:
            began = time.perf_counter()
            while began < end:
                stream.write_all(attacks.HEAD + b"\r\n")
                head = stream.read_until(b"\r\n\r\n")
                stream.read_exactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]))
                now = time.perf_counter()
                took.append(now - began)
                began = now

    with fibers.TaskGroup() as group:
        for stream in streams:
            group.spawn(client, stream)
    took.sort()
    print(json.dumps([len(took), took[len(took) * 99 // 100]]), flush=True)


@contextmanager
def process(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A process that dies with the block."""
    child = subprocess.Popen([*PYTHON, *words], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def cpu(port: int) -> float:
    """The server's, so far."""
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/cpu")
    value = float(connection.getresponse().read())
    connection.close()
    return value


def good(port: int, seconds: float) -> tuple[int, float, float, float]:
    """Requests, CPU of the server, seconds that it took, 99th percentile of the latency."""
    with process("bench.hostile", "good", str(port), str(seconds)) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        before, began = cpu(port), time.perf_counter()
        child.stdin.write("go\n")
        child.stdin.flush()
        requests, slow = json.loads(child.stdout.readline())
        elapsed, spent = time.perf_counter() - began, cpu(port) - before
    return requests, spent, elapsed, slow


def measure(kinds: list[str], rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """For each kind the medians: CPU a request (s) alone and beside, the ratios, the attack's share, p99 (s)."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    with process("bench.hostile", "serve") as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        good(port, seconds / 2)  # warm
        for _ in range(rounds):
            for kind in kinds:
                found[kind].append(once(port, kind, seconds))
    return {kind: {key: median(each[key] for each in rows) for key in rows[0]} for kind, rows in found.items()}


def once(port: int, kind: str, seconds: float) -> dict[str, float]:
    """One round of one kind."""
    count, spent, _, slow = good(port, seconds)
    alone = spent / count
    with process("bench.attacks", kind, str(port)) as attackers:
        assert attackers.stdout is not None
        attackers.stdout.readline()
        time.sleep(min(1.0, seconds))  # until all are at their pace
        began, before = time.perf_counter(), cpu(port)
        time.sleep(seconds)
        share = (cpu(port) - before) / (time.perf_counter() - began)
        count, spent, elapsed, slow_beside = good(port, seconds)
        beside = (spent - share * elapsed) / count
    return {
        "alone": alone, "beside": beside, "ratio": beside / alone, "gross": spent / count / alone, "share": share,
        "p99": slow, "p99 beside": slow_beside,
    }  # fmt: skip


def table(results: dict[str, dict[str, float]]) -> str:
    """For people."""
    lines = ["attack        alone   beside   ratio   gross   attack's CPU   p99 alone   beside"]
    for kind, row in results.items():
        lines.append(
            f"{kind:<12}{row['alone'] * 1e6:5.1f} µs {row['beside'] * 1e6:5.1f} µs  {row['ratio']:6.2f}  {row['gross']:6.2f}"
            f"        {row['share']:6.1%}   {row['p99'] * 1e3:6.1f} ms  {row['p99 beside'] * 1e3:4.1f} ms"
        )
    return "\n".join(lines)


def main(words: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.hostile", description="good clients beside hostile ones")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run (2)")
    parser.add_argument(
        "--only", default=",".join([*attacks.KINDS, "all"]), help="kinds of attacks, by commas (%(default)s)"
    )
    parser.add_argument("--limit", type=float, default=1.2, help="the ratio that is allowed (1.2)")
    options = parser.parse_args(words)
    kinds = options.only.split(",")
    if unknown := [kind for kind in kinds if kind not in (*attacks.KINDS, "all")]:
        parser.error(f"no attack {unknown[0]!r}; there are {', '.join(attacks.KINDS)} and all")
    results = measure(kinds, options.rounds, options.seconds)
    print(
        f"CPU of the server for a request of {GOOD} good clients, medians of {options.rounds} rounds; {machine.processor()}"
    )
    print(table(results))
    return int(any(row["ratio"] > options.limit for row in results.values()))


if __name__ == "__main__":
    material.raise_fd_limit()
    roles = {
        "serve": lambda: fibers.run(serve),
        "good": lambda: fibers.run(be_good, int(sys.argv[2]), float(sys.argv[3])),
    }
    role = roles.get(sys.argv[1]) if len(sys.argv) > 1 else None
    sys.exit(main(sys.argv[1:]) if role is None else role())
