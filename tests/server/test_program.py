"""A server that is the program: signals, and forks in its handlers."""

import os
import signal
from pathlib import Path

import pytest
from support.server_program import Program, ask, connect

HOW = pytest.mark.parametrize("how", ["threads=1", "threads=2", "processes=2"])

SLOW = """
def slow(sock, address):
    sock.sendall(b"hello")
    if sock.recv(1) == b"g":
        sock.sendall(b"bye")
def begin():
    say(server.address[1])
server = TCPServer(("127.0.0.1", 0), slow, {how}, graceful_timeout={graceful}, on_worker_start=begin)
if "processes" not in {how!r}:
    server.start()
    say(server.address[1])
try:
    say(*server.serve_forever())
finally:
    say("after it")
"""


def slow(how: str, graceful: float) -> str:
    return SLOW.format(how=how, graceful=graceful)


@HOW
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_graceful_stop(how: str, number: int, tmp_path: Path) -> None:
    with Program(tmp_path, slow(how, 60)) as program:
        address = ("127.0.0.1", int(program.line()))
        program.told("READY=1")
        with connect(address) as client:
            assert client.recv(5) == b"hello"
            program.signal(number)
            program.told("STOPPING=1")
            client.sendall(b"go")
            assert client.recv(10) == b"bye"
        if how == "processes=2":
            assert int(program.line()) == address[1]
        assert program.line() in ("1 () ()", "0 () ()")  # it may have been done before its loop knew of the stop
        assert program.line() == "after it"
        assert program.line() == ""
        assert program.end() == 0


@HOW
def test_the_second_one_cuts_at_once(how: str, tmp_path: Path) -> None:
    with Program(tmp_path, slow(how, 1000)) as program:
        address = ("127.0.0.1", int(program.line()))
        program.told("READY=1")
        with connect(address) as client:
            assert client.recv(5) == b"hello"
            program.signal(signal.SIGTERM)
            program.told("STOPPING=1")
            program.signal(signal.SIGTERM)
            assert client.recv(10) == b""
        if how == "processes=2":
            program.line()
        told = program.line()
        assert told.startswith("0 ('slow for 127.0.0.1:"), told
        assert program.end() == 0
        assert "SIGTERM again: what is left is cut" in program.log()


@HOW
def test_the_deadline_cuts_too(how: str, tmp_path: Path) -> None:
    with Program(tmp_path, slow(how, 0.05)) as program:
        address = ("127.0.0.1", int(program.line()))
        program.told("READY=1")
        with connect(address) as client:
            assert client.recv(5) == b"hello"
            program.signal(signal.SIGTERM)
            assert client.recv(10) == b""
        assert program.end() == 0


def test_sighup_reloads_what_there_is_to_reload(tmp_path: Path) -> None:
    code = """
count = 0
def reload():
    global count
    count += 1
    if count == 2:
        raise LookupError("bad configuration")
    say("reload", count)
server = TCPServer(("127.0.0.1", 0), pid, on_reload=reload).start()
say(server.address[1])
server.serve_forever()
"""
    with Program(tmp_path, code) as program:
        address = ("127.0.0.1", int(program.line()))
        program.told("READY=1")
        for _ in range(3):
            program.signal(signal.SIGHUP)
            program.told("RELOADING=1")
            program.told("READY=1")
            assert ask(address) == b"%d" % program.pid
        assert program.line() == "reload 1"
        assert program.line() == "reload 3"
        assert "bad configuration" in program.log()
        program.signal(signal.SIGTERM)
        assert program.end() == 0


def test_without_anything_to_reload_sighup_does_what_it_always_did(tmp_path: Path) -> None:
    with Program(tmp_path, 'TCPServer(("127.0.0.1", 0), pid).serve_forever()') as program:
        program.told("READY=1")
        program.signal(signal.SIGHUP)
        assert program.end() == -signal.SIGHUP


def test_elsewhere_than_in_the_main_thread_signals_are_left_alone(tmp_path: Path) -> None:
    code = """
server = TCPServer(("127.0.0.1", 0), pid)
with fibers.FiberThread() as thread:
    try:
        thread.spawn(server.serve_forever)
        while True:
            time.sleep(0.1)  # a signal just before a plain sleep does not cut it short
    except KeyboardInterrupt:
        say("as ever")
        server.request_stop(0)
"""
    with Program(tmp_path, code) as program:
        program.told("READY=1")
        program.signal(signal.SIGINT)
        assert program.line() == "as ever"
        assert program.end() == 0


def test_handlers_are_put_back(tmp_path: Path) -> None:
    code = """
signal.signal(signal.SIGTERM, lambda *_: say("mine"))
server = TCPServer(("127.0.0.1", 0), lambda sock, address: server.request_stop(), {how})
if {how!r} == "threads=1":
    server.start()
    with socket.create_connection(server.address):
        server.serve_forever()
else:
    server.serve_forever()
os.kill(os.getpid(), signal.SIGTERM)
say("end")
"""
    with Program(tmp_path, code.format(how="threads=1")) as program:
        assert program.line() == "mine"
        assert program.line() == "end"
    (tmp_path / "more").mkdir()
    with Program(tmp_path / "more", code.format(how="processes=1, threads=1")) as program:
        program.told("READY=1")
        program.signal(signal.SIGTERM)
        assert program.line() == "mine"
        assert program.end() == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_a_handler_may_fork(threads: int, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    code = f"""
def forking(sock, address):
    child = os.fork()
    sock.sendall(b"child" if not child else b"parent")
    if child:
        say("child ended with", os.waitpid(child, 0)[1])
try:
    UnixServer({path!r}, forking, threads={threads}).serve_forever()
finally:
    say("end of", "parent" if os.getpid() == {{pid}} else "child")
""".replace("{pid}", "int(os.environ['PARENT'])")
    code = "os.environ['PARENT'] = str(os.getpid())\n" + code
    with Program(tmp_path, code) as program:
        program.told("READY=1")
        for _ in range(3):
            assert sorted(ask(path).decode().replace("child", "").split()) in (["parent"], [])
            assert os.path.exists(path)  # the end of the child is not that of the server
        said = [program.line() for _ in range(6 if threads == 1 else 3)]
        assert said.count("child ended with 0") == 3, said
        program.signal(signal.SIGTERM)
        program.told("STOPPING=1")
        assert program.end() == 0
        assert not os.path.exists(path)
