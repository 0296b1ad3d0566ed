"""Many processes: who serves, and what happens when one of them, or the master, ends."""

import collections
import os
import signal
from pathlib import Path

import pytest
from support.prefork import Load, begun, pids, stop, until_gone
from support.scale import scaled
from support.server_program import Program, ask, connect

from fibers.server.listeners import BALANCED


@pytest.mark.skipif(not BALANCED, reason="here the system does not share connections out")
def test_four_processes_share_the_connections(tmp_path: Path) -> None:
    with Program(tmp_path, pids("processes=4")) as program:
        address, workers = begun(program, 4)
        program.told("READY=1")
        served = collections.Counter(int(ask(address)) for _ in range(scaled(10_000, least=800)))
        assert set(served) == workers
        assert max(served.values()) / min(served.values()) < 1.5
        stop(program)


def test_each_process_may_have_several_loops(tmp_path: Path) -> None:
    code = """
import threading
def who(sock, address):
    sock.sendall(b"%d" % threading.get_native_id())
server = TCPServer(("127.0.0.1", 0), who, processes=2, threads=2, on_worker_start=lambda: say(server.address[1], 0))
server.serve_forever()
"""
    with Program(tmp_path, code) as program:
        address, _ = begun(program, 2)
        program.told("READY=1")
        found = {ask(address) for _ in range(100)}
        assert len(found) == 4 or not BALANCED
        stop(program)


def test_a_listening_socket_may_be_given(tmp_path: Path) -> None:
    code = "given = socket.create_server(('127.0.0.1', 0))\n" + pids("processes=3", "given")
    with Program(tmp_path, code) as program:
        address, workers = begun(program, 3)
        program.told("READY=1")
        assert {int(ask(address)) for _ in range(30)} <= workers
        stop(program)


def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    code = f"UnixServer({path!r}, pid, processes=2).serve_forever()"
    with Program(tmp_path, code) as program:
        program.told("READY=1")
        assert ask(path)
        program.signal(signal.SIGHUP)
        program.told("RELOADING=1")
        program.told("READY=1")
        assert ask(path)
        stop(program)
        assert not os.path.exists(path)


def test_no_request_is_lost_while_generations_change(tmp_path: Path) -> None:
    reloads = 3
    count = scaled(10_000, least=600)
    with Program(tmp_path, pids("processes=2, graceful_timeout=20")) as program:
        address, workers = begun(program, 2)
        program.told("READY=1")
        with Load(address) as load:
            load.wait_for(20)
            for _ in range(reloads):
                program.signal(signal.SIGHUP)
                program.told("RELOADING=1")
                program.told("READY=1")
                _, workers = begun(program, 2)
                load.wait_for(count // reloads)
        assert load.failures == []
        assert load.served >= count
        assert set(load.by) >= workers
        for pid in set(load.by) - workers:
            until_gone(pid)
        stop(program)


def test_what_is_being_handled_outlives_a_reload(tmp_path: Path) -> None:
    code = """
def begin():
    say(server.address[1], os.getpid())
server = TCPServer(("127.0.0.1", 0), echo, on_worker_start=begin, processes=2)
server.serve_forever()
"""
    with Program(tmp_path, code) as program:
        address, old = begun(program, 2)
        program.told("READY=1")
        with connect(address) as client:
            client.sendall(b"before")
            assert client.recv(100) == b"before"
            program.signal(signal.SIGHUP)
            program.told("RELOADING=1")
            program.told("READY=1")
            begun(program, 2)
            client.sendall(b"after")
            assert client.recv(100) == b"after"
        for pid in old:
            until_gone(pid)
        stop(program)


def test_a_new_generation_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    code = """
def begin():
    if os.path.exists("broken"):
        raise LookupError("bad configuration")
    say(server.address[1], os.getpid())
server = TCPServer(("127.0.0.1", 0), pid, on_worker_start=begin, processes=2)
os.chdir(os.path.dirname(__file__))
server.serve_forever()
"""
    with Program(tmp_path, code) as program:
        address, workers = begun(program, 2)
        program.told("READY=1")
        with Load(address) as load:
            (tmp_path / "broken").touch()
            program.signal(signal.SIGHUP)
            program.told("RELOADING=1")
            program.told("READY=1")
            load.wait_for(50)
            assert set(load.by) <= workers
            (tmp_path / "broken").unlink()
            program.signal(signal.SIGHUP)
            program.told("RELOADING=1")
            program.told("READY=1")
            _, new = begun(program, 2)
            load.wait_for(50)
        assert load.failures == []
        assert set(load.by) & new
        log = program.log()
        assert "bad configuration" in log
        assert "those that there are go on" in log
        program.signal(signal.SIGTERM)
        assert program.end() == 0


def test_a_process_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with Program(tmp_path, pids("processes=2")) as program:
        address, workers = begun(program, 2)
        program.told("READY=1")
        victim = min(workers)
        os.kill(victim, signal.SIGKILL)
        _, new = begun(program, 1)
        found: set[int] = set()
        while not found >= new:  # those of the victim's share had waited
            found.add(int(ask(address)))
        assert found <= workers - {victim} | new
        assert f"process {victim} of the server has ended: killed by SIGKILL" in program.log()
        stop(program)


def test_one_that_dies_again_and_again_is_replaced_after_pauses(tmp_path: Path) -> None:
    code = """
from fibers.server import slots
slots.FIRST_PAUSE, slots.LONGEST_PAUSE = 0.01, 0.03
def deadly(sock, address):
    os._exit(7)
def begin():
    say(server.address[1], time.monotonic())
server = TCPServer(("127.0.0.1", 0), deadly, on_worker_start=begin, processes=2)
server.serve_forever()
"""
    with Program(tmp_path, code) as program:
        address = ("127.0.0.1", int(program.line().split()[0]))
        program.line()
        program.told("READY=1")
        for _ in range(8):
            try:
                assert ask(address) == b""
            except ConnectionError:
                pass
            program.line()
        assert program.log().count("exit status 7") == 8
        stop(program)


@pytest.mark.parametrize("where", ["on_worker_start=fail", "threads=2, on_worker_start=fail"])
def test_if_none_can_start_that_is_an_error_of_the_program(where: str, tmp_path: Path) -> None:
    code = f"""
def fail():
    raise LookupError("no database")
try:
    TCPServer(("127.0.0.1", 0), pid, processes=2, {where}).serve_forever()
except RuntimeError as error:
    say(error)
"""
    with Program(tmp_path, code) as program:
        assert "could not start: exit status 1" in program.line()
        assert program.end() == 0
        assert "no database" in program.log()


def test_an_address_that_is_taken_is_told_before_anything_is_forked(tmp_path: Path) -> None:
    code = """
with socket.create_server(("127.0.0.1", 0)) as taken:
    try:
        TCPServer(taken.getsockname(), pid, processes=2).serve_forever()
    except OSError as error:
        say(error)
"""
    with Program(tmp_path, code) as program:
        assert "cannot listen on 127.0.0.1" in program.line()
        assert program.end() == 0


def test_the_death_of_the_master_is_a_graceful_stop_of_the_others(tmp_path: Path) -> None:
    code = """
def begin():
    say(server.address[1], os.getpid())
server = TCPServer(("127.0.0.1", 0), echo, on_worker_start=begin, processes=2, graceful_timeout=60)
server.serve_forever()
"""
    with Program(tmp_path, code) as program:
        address, workers = begun(program, 2)
        program.told("READY=1")
        with connect(address) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            program.signal(signal.SIGKILL)
            program.end()
            while True:  # the address is free soon
                try:
                    connect(address).close()
                except ConnectionError:
                    break
            client.sendall(b"y")
            assert client.recv(1) == b"y"
        for pid in workers:
            until_gone(pid)
        assert "its master is gone" in program.log()


def test_with_the_master_gone_who_is_not_done_in_time_is_cut(tmp_path: Path) -> None:
    code = """
def begin():
    say(server.address[1], os.getpid())
server = TCPServer(("127.0.0.1", 0), echo, on_worker_start=begin, processes=2, graceful_timeout=0.01)
server.serve_forever()
"""
    with Program(tmp_path, code) as program:
        address, workers = begun(program, 2)
        program.told("READY=1")
        with connect(address) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            program.signal(signal.SIGKILL)
            assert client.recv(1) == b""
        for pid in workers:
            until_gone(pid)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_process_that_hangs_is_killed_and_replaced(threads: int, tmp_path: Path) -> None:
    code = f"""
import faulthandler
faulthandler.enable()
def hang(sock, address):
    sock.sendall(b"%d" % os.getpid())
    if sock.recv(1):
        while True:
            time.sleep(0)
def begin():
    say(server.address[1], os.getpid())
server = TCPServer(
    ("127.0.0.1", 0), hang, on_worker_start=begin, processes=2, threads={threads}, worker_timeout=1
)
server.serve_forever()
"""
    with Program(tmp_path, code) as program:
        address, _ = begun(program, 2)
        program.told("READY=1")
        with connect(address) as client:
            hanging = int(client.recv(100))
            client.sendall(b"hang")
            begun(program, 1)
            until_gone(hanging)
        log = program.log()
        assert f"process {hanging} hangs: it is killed" in log
        assert "in hang" in log  # where it did
        program.signal(signal.SIGTERM)
        assert program.end() == 0


def test_an_idle_process_does_not_hang(tmp_path: Path) -> None:
    with Program(tmp_path, pids("processes=2, threads=2, worker_timeout=0.5"), {"WATCHDOG_USEC": "300000"}) as program:
        address, workers = begun(program, 2)
        program.told("READY=1")
        for _ in range(6):  # nearly two of the times that are allowed
            program.told("WATCHDOG=1")
        assert int(ask(address)) in workers
        assert "hangs" not in program.log()
        stop(program)


def test_processes_retire_and_nobody_notices(tmp_path: Path) -> None:
    with Program(tmp_path, pids("processes=2, retire_after=20")) as program:
        address, _ = begun(program, 2)
        program.told("READY=1")
        with Load(address) as load:
            begun(program, 6)
            load.wait_for(20)
        assert load.failures == []
        assert len(load.by) >= 6
        stop(program)


@pytest.mark.skipif(not os.path.exists("/proc/self/ns/pid"), reason="subreapers are Linux's")
def test_children_of_others_are_reaped_where_they_fall_to_the_master(tmp_path: Path) -> None:
    code = """
import ctypes
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: as good as process 1
def orphan(sock, address):
    middle = os.fork()
    if not middle:
        if os.fork():
            os._exit(0)
        say(os.getpid())
        os._exit(5)
    os.waitpid(middle, 0)
server = TCPServer(("127.0.0.1", 0), orphan, on_worker_start=lambda: say(server.address[1], os.getpid()), processes=2)
server.serve_forever()
"""
    with Program(tmp_path, code) as program:
        address, _ = begun(program, 2)
        program.told("READY=1")
        assert ask(address) == b""
        until_gone(int(program.line()))
        while "Z" in states_of_children(program.pid):
            ask(address)
        stop(program)


def states_of_children(pid: int) -> list[str]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = []
    for child in children:
        try:
            found.append(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0])
        except OSError:
            pass
    return found


def test_children_of_the_program_are_its_own(tmp_path: Path) -> None:
    code = (
        """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
"""
        + pids("processes=2")
        + 'say("child", child.wait())'
    )
    with Program(tmp_path, code) as program:
        begun(program, 2)
        program.told("READY=1")
        program.signal(signal.SIGTERM)
        assert program.line() == "child 3"
        assert program.end() == 0


def test_forking_beside_fibers_is_refused(tmp_path: Path) -> None:
    code = """
def try_it():
    try:
        TCPServer(("127.0.0.1", 0), pid, processes=2).serve_forever()
    except RuntimeError as error:
        say(error)
def main():
    other = fibers.spawn(fibers.sleep, 1000, name="the other")
    try_it()
    other.cancel()
    other.join()
    with fibers.FiberThread():
        try_it()
fibers.run(main)
fibers.to_thread(try_it)
"""
    with Program(tmp_path, code) as program:
        assert "the other" in program.line()
        assert "a loop in thread" in program.line()
        assert "main thread" in program.line()
        assert program.end() == 0


def test_inside_of_run_and_after_it(tmp_path: Path) -> None:
    code = pids("processes=2").replace("server.serve_forever()", "fibers.run(server.serve_forever)\nsay('end')")
    with Program(tmp_path, code) as program:
        address, workers = begun(program, 2)
        program.told("READY=1")
        assert int(ask(address)) in workers
        program.signal(signal.SIGTERM)
        assert program.line() == "end"
        assert program.end() == 0


def test_exit_functions_of_the_master_do_not_run_in_workers(tmp_path: Path) -> None:
    code = """
import atexit
atexit.register(lambda: say("exit of", "master" if os.getpid() == master else "worker"))
master = os.getpid()
def begin():
    atexit.register(lambda: say("own"))
try:
    TCPServer(("127.0.0.1", 0), pid, processes=2, on_worker_start=begin).serve_forever()
finally:
    say("end of", "master" if os.getpid() == master else "worker")
"""
    with Program(tmp_path, code) as program:
        program.told("READY=1")
        program.signal(signal.SIGTERM)
        assert [program.line() for _ in range(5)] == ["own", "own", "end of master", "exit of master", ""]
        assert program.end() == 0
