"""Programs with many processes: how to start one, to keep it busy, and to know who is there."""

import collections
import os
import select
import signal
import threading
from typing import Any

from support.server_program import LIMIT, Program, ask

#: A server whose processes say their pid to each client, and tell the test where they listen.
PIDS = """
def begin():
    say(server.address[1], os.getpid())
server = TCPServer({address}, pid, on_worker_start=begin, {options})
server.serve_forever()
"""


def pids(options: str, address: str = '("127.0.0.1", 0)') -> str:
    return PIDS.format(address=address, options=options)


def begun(program: Program, count: int) -> tuple[Any, set[int]]:
    """Wait for so many processes to begin: the address, and their pids."""
    told = [program.line().split() for _ in range(count)]
    return ("127.0.0.1", int(told[0][0])), {int(pid) for _, pid in told}


def until_gone(pid: int) -> None:
    """Wait for the end of a process that is not our child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(LIMIT * 1000), f"process {pid} is still there"
    finally:
        os.close(fd)


class Load:
    """Clients that go on connecting in threads: how many were served, by whom, and what went wrong."""

    def __init__(self, address: Any, threads: int = 2) -> None:
        self.by: collections.Counter[int] = collections.Counter()
        self.failures: list[BaseException] = []
        self.served = 0
        self._address = address
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._more = threading.Condition(self._lock)
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                pid = int(ask(self._address))
            except (OSError, ValueError) as error:
                self.failures.append(error)
                return
            with self._lock:
                self.served += 1
                self.by[pid] += 1
                self._more.notify_all()

    def wait_for(self, count: int) -> None:
        """Until so many more have been served."""
        with self._more:
            target = self.served + count
            assert self._more.wait_for(lambda: self.served >= target or bool(self.failures), LIMIT)

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def stop(program: Program) -> None:
    program.signal(signal.SIGTERM)
    assert program.end() == 0
    log = program.log()
    assert "Traceback" not in log, log
