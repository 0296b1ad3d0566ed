"""Processes that are missing, for a moment or for good: who comes meanwhile is served by the others."""

import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.once import once
from support.prefork import Load, begun, pids, stop, until_gone
from support.scale import scaled
from support.server_program import LIMIT, Program, ask, connect

from fibers.server.listeners import BALANCED

#: A server whose new processes have to pass a gate.
GATE = """
import fcntl
os.chdir(os.path.dirname(__file__))
def begin():
    say(server.address[1], os.getpid())
    with open("gate", "a") as gate:
        fcntl.flock(gate, fcntl.LOCK_SH)
server = {server}(("127.0.0.1", 0), {handler}, on_worker_start=begin, {options})
server.serve_forever()
"""


def gated(options: str = "processes=2", server: str = "TCPServer", handler: str = "pid") -> str:
    return GATE.format(server=server, options=options, handler=handler)


@contextmanager
def gate_closed(folder: Path) -> Iterator[None]:
    """No new process begins to serve."""
    with open(folder / "gate", "a") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        yield


def until_served_by(pid: int, address: Any) -> None:
    while int(ask(address)) != pid:
        pass


def test_who_comes_while_a_process_is_missing_is_served_by_its_neighbours(tmp_path: Path) -> None:
    with Program(tmp_path, gated("processes=3, threads=2")) as program:
        address, workers = begun(program, 3)
        program.told("READY=1")
        for _ in range(2):  # also those that have minded one already, and were released
            with gate_closed(tmp_path):
                victim = min(workers)
                os.kill(victim, signal.SIGKILL)
                _, (heir,) = begun(program, 1)  # at the gate: the port is one process short
                until_gone(victim)
                assert {int(ask(address)) for _ in range(60)} <= workers - {victim}
            workers = workers - {victim} | {heir}
            until_served_by(heir, address)
        stop(program)


@once
@pytest.mark.skipif(not BALANCED, reason="here all processes share one queue")
def test_who_waits_in_the_queue_of_one_that_dies_is_served_by_its_neighbours(tmp_path: Path) -> None:
    with Program(tmp_path, gated()) as program:
        address, workers = begun(program, 2)
        program.told("READY=1")
        with gate_closed(tmp_path):
            victim = min(workers)
            os.kill(victim, signal.SIGSTOP)
            clients = [connect(address) for _ in range(40)]  # half of them in its queue
            os.kill(victim, signal.SIGKILL)
            begun(program, 1)
            assert {int(client.recv(100)) for client in clients} == workers - {victim}
            for client in clients:
                client.close()
        stop(program)


@once
def test_a_neighbour_that_dies_as_well_is_followed_by_another(tmp_path: Path) -> None:
    with Program(tmp_path, gated("processes=4")) as program:
        address, workers = begun(program, 4)
        program.told("READY=1")
        with gate_closed(tmp_path):
            survivor = max(workers)
            for victim in workers - {survivor}:
                os.kill(victim, signal.SIGKILL)
            begun(program, 3)
            assert {int(ask(address)) for _ in range(60)} == {survivor}
        stop(program)


def test_datagrams_have_neighbours_too(tmp_path: Path) -> None:
    code = gated(server="UDPServer", handler='lambda data, address: b"%d" % os.getpid()')

    def send(address: Any) -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            client.connect(address)
            client.send(b"?")
            return int(client.recv(100))

    with Program(tmp_path, code) as program:
        address, workers = begun(program, 2)
        program.told("READY=1")
        with gate_closed(tmp_path):
            victim = min(workers)
            os.kill(victim, signal.SIGKILL)
            _, (heir,) = begun(program, 1)
            assert {send(address) for _ in range(30)} == workers - {victim}
        while send(address) != heir:
            pass
        stop(program)


@once
def test_signals_change_the_number_of_processes_and_nobody_notices(tmp_path: Path) -> None:
    some = scaled(2000, least=40)
    with Program(tmp_path, pids("processes=2, graceful_timeout=20")) as program:
        address, first = begun(program, 2)
        program.told("READY=1")
        with Load(address) as load:
            program.signal(signal.SIGTTIN)
            _, (third,) = begun(program, 1)
            until_served_by(third, address)
            assert first | {third} == {int(ask(address)) for _ in range(100)} or not BALANCED
            for _ in range(3):
                program.signal(signal.SIGTTOU)
                load.wait_for(some)
            program.signal(signal.SIGHUP)  # the one that is left is replaced
            program.told("RELOADING=1")
            program.told("READY=1")
            _, (alone,) = begun(program, 1)
            for pid in first | {third}:
                until_gone(pid)
            load.wait_for(some)
            assert {int(ask(address)) for _ in range(60)} == {alone}
            for _ in range(3):  # two that were given up, and a new one
                program.signal(signal.SIGTTIN)
                _, (new,) = begun(program, 1)
                until_served_by(new, address)
            load.wait_for(some)
        assert load.failures == []
        log = program.log()
        assert "there is one process only, and it stays" in log
        assert "SIGTTIN: 4 processes" in log
        stop(program)


@once
def test_the_number_of_processes_on_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    code = f"UnixServer({path!r}, pid, on_worker_start=lambda: say(os.getpid()), processes=2).serve_forever()"
    with Program(tmp_path, code) as program:
        workers = {int(program.line()) for _ in range(2)}
        program.told("READY=1")
        program.signal(signal.SIGTTIN)
        workers.add(int(program.line()))
        for _ in range(2):
            program.signal(signal.SIGTTOU)
            while len(workers) > 1 and not (gone := {pid for pid in workers if not _alive(pid)}):
                ask(path)
            workers -= gone
        assert {int(ask(path)) for _ in range(10)} == workers
        stop(program)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
