"""What a TCP echo server asks of the kernel under load, counted by strace, and by the loop's own counters everywhere.

Invariant 2: in steady state an fd costs one registration and one unregistration in its life, and at most one
modification. The server runs in a process of its own; plain threads with standard sockets are the load.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from textwrap import dedent

import pytest
from support.backends import lifetime_only
from support.process import environment

from fibers.eventloop import BACKEND

CONNECTIONS, ROUNDS = 20, 50

SERVER = dedent(
    """
    import sys
    import fibers
    from fibers.io import socket
    from fibers.core.scheduler import get_scheduler

    def echo(connection):
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)

    def main(count):
        stats = get_scheduler().loop.stats
        with socket.create_server(("127.0.0.1", 0), backlog=count) as listener:
            print(listener.getsockname()[1], flush=True)
            fibers_ = [fibers.spawn(echo, listener.accept()[0]) for _ in range(count)]
            for fiber in fibers_:
                fiber.join()
        print(stats.registrations, stats.modifications, stats.unregistrations, stats.moves, flush=True)

    fibers.run(main, int(sys.argv[1]))
    """
)


def load(port: int) -> None:
    """Every connection sends ROUNDS requests, one after the other, all connections side by side; then all end."""
    clients = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(CONNECTIONS)]
    for each in range(ROUNDS):
        message = b"request %5d" % each
        for client in clients:
            client.sendall(message)
        for client in clients:
            got = b""
            while len(got) < len(message):
                got += client.recv(1000)
            assert got == message
    for client in clients:
        client.close()


def serve(*tracer: str) -> tuple[int, int, int, int]:
    """Run the server under `tracer`, and the load: its registrations, modifications, unregistrations, moves."""
    server = subprocess.Popen(
        [*tracer, sys.executable, "-c", SERVER, str(CONNECTIONS)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        load(int(server.stdout.readline()))
        rest, _ = server.communicate(timeout=30)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    assert server.returncode == 0
    registrations, modifications, unregistrations, moves = map(int, rest.split())
    return registrations, modifications, unregistrations, moves


@lifetime_only
def test_one_registration_and_one_unregistration_per_file() -> None:
    """Each connection once, and the listener, if it had to wait at all. Hardly anything waits for writing here."""
    registrations, modifications, unregistrations, moves = serve()
    assert registrations == unregistrations
    assert registrations in (CONNECTIONS, CONNECTIONS + 1)
    assert modifications <= CONNECTIONS
    assert moves == 0


@pytest.fixture
def strace(tmp_path: Path) -> list[str]:
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed")
    probe = subprocess.run([program, "-o", os.devnull, "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("strace may not trace processes here")
    return [
        program, "-f", "-qq", "-o", str(tmp_path / "trace"),
        "-e", "trace=recvfrom,recvmsg,read,sendto,sendmsg,write,epoll_ctl,epoll_wait,epoll_pwait,epoll_pwait2,accept4,close",
    ]  # fmt: skip


@pytest.mark.skipif(BACKEND != "epoll", reason="counts the calls of epoll")
def test_strace_of_an_echo_server_under_load(strace: list[str], tmp_path: Path) -> None:
    """One recv and one send a request; one ADD a connection, at most one MOD; DEL only at close."""
    serve(*strace)
    lines = (tmp_path / "trace").read_text().splitlines()
    calls = [re.sub(r"^\d+\s+", "", line) for line in lines]
    requests = CONNECTIONS * ROUNDS
    accepted = {
        line.rsplit("= ", 1)[1].split()[0] for line in calls if line.startswith("accept4(") and " = -1" not in line
    }
    assert len(accepted) == CONNECTIONS

    def of(name: str) -> list[str]:
        return [
            line for line in calls if line.startswith(name + "(") and line[len(name) + 1 :].split(",")[0] in accepted
        ]

    received, sent = of("recvfrom"), of("sendto")
    assert len(sent) == requests
    # Each connection ends with one empty read, and its first read may come too early.
    assert requests + CONNECTIONS <= len(received) <= requests + 2 * CONNECTIONS
    assert of("recvmsg") == of("sendmsg") == of("read") == of("write") == []

    controls: dict[str, Counter[str]] = {}
    for line in calls:
        found = re.match(r"epoll_ctl\(\d+, EPOLL_CTL_(\w+), (\d+)", line)
        if found:
            controls.setdefault(found[2], Counter())[found[1]] += 1
    for fd in accepted:
        assert controls[fd]["ADD"] == 1
        assert controls[fd]["MOD"] <= 1
        assert controls[fd]["DEL"] == 1
    others = sum(counter["ADD"] for fd, counter in controls.items() if fd not in accepted)
    assert others <= 3, "the listener and the two wakers"

    first = next(i for i, line in enumerate(calls) if line.startswith("sendto(") and line[7:].split(",")[0] in accepted)
    last = max(i for i, line in enumerate(calls) if line.startswith("sendto(") and line[7:].split(",")[0] in accepted)
    started = {line[9:].split(",")[0] for line in calls[:first] if line.startswith("recvfrom(")}
    steady = [line for line in calls[first:last] if line.startswith("epoll_ctl(")]
    late = [line for line in steady if re.search(r"EPOLL_CTL_(ADD), (\d+)", line) is None]
    assert late == [], "epoll_ctl in steady state"
    assert len(steady) <= CONNECTIONS - len(started & accepted) + 1, "only connections that were not up yet are added"

    for fd in accepted:  # DEL comes right before the close of the same fd
        order = [
            line.split("(")[0] + line.split("(")[1][:12] for line in calls if re.search(rf"(DEL, |close\(){fd}\b", line)
        ]
        assert [each.startswith("close") for each in order[-2:]] == [False, True]
    waits = [line for line in calls if line.startswith(("epoll_wait(", "epoll_pwait"))]
    assert len(waits) <= requests + 3 * CONNECTIONS + 20
