"""10,000 idle connections (scaled): the loop makes no turn for a second, whatever is registered with it.

The clients live in a child process, because both ends in one process would need twice the file descriptors.
"""

import resource
import subprocess
import sys
import time
from textwrap import dedent

import pytest
from support.process import environment
from support.scale import scaled

import fibers
from fibers.core.scheduler import get_scheduler
from fibers.eventloop import BACKEND
from fibers.io import socket
from fibers.threads.to_thread import to_thread

CLIENTS = dedent(
    """
    import socket, sys
    port, count = int(sys.argv[1]), int(sys.argv[2])
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    print("connected", flush=True)
    for line in sys.stdin:
        clients[int(line)].sendall(b"awake")
    """
)


def memory_kb() -> int:
    """Resident memory of this process, in kB; 0 where the system does not tell."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    except OSError:
        return 0


def idle(count: int) -> tuple[int, float]:
    """Serve `count` idle clients for a second: turns of this thread's loop, and kB a connection with its fiber."""
    stats = get_scheduler().loop.stats
    before = memory_kb()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        child = subprocess.Popen(
            [sys.executable, "-c", CLIENTS, str(listener.getsockname()[1]), str(count)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            connections = [listener.accept()[0] for _ in range(count)]
            assert child.stdout.readline() == "connected\n"
            readers = [fibers.spawn(connection.recv, 100) for connection in connections]
            fibers.sleep(0.05)
            each = (memory_kb() - before) / count
            turns, cpu = stats.turns, time.thread_time()
            fibers.sleep(1)
            turns, cpu = stats.turns - turns, time.thread_time() - cpu
            assert cpu < 0.2
            assert not any(reader.done() for reader in readers)
            for number in (0, count // 2, count - 1):
                child.stdin.write(f"{number}\n")
            child.stdin.close()  # the child ends, and with it all connections
            got = sorted(reader.result(10) for reader in readers)
            assert got == [b""] * (count - 3) + [b"awake"] * 3
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
        for connection in connections:
            connection.close()
    return turns, each


def test_idle_connections_make_no_turns(capsys: pytest.CaptureFixture[str]) -> None:
    """Invariant 9. In a thread of its own: what earlier tests left to a loop would count here."""
    count = 300 if BACKEND == "select" else scaled(10_000, least=500)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + 200:
        pytest.skip(f"this system gives a process fewer than {count + 200} file descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 200), hard))
    try:
        turns, each = to_thread(fibers.run, idle, count)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with capsys.disabled():
        print(f"\n{count} idle connections with a waiting fiber: {turns} turns in a second, {each:.1f} kB each")
    assert turns <= 2, "the one that ends the sleep, and one for a timer slot"
