"""The access log: its formats, and that nobody waits for it."""

import io
import json
import os
import re
import threading
from pathlib import Path

import pytest
from support.http_serving import request, site
from support.process import run_python

from fibers.http import COMMON, JSON, AccessLog, Request, Response, Server
from fibers.http.logformat import compile_format


def service() -> Server:
    server = Server()
    server.route("/{path*}", methods=["GET", "POST"])(lambda request, path: Response("hello", 201, [("X-Out", 'o"')]))
    return server


def logged(format: str, *requests: bytes) -> list[str]:
    stream = io.StringIO()
    log = AccessLog(stream, format)
    with site(service(), access_log=log) as served:
        for sent in requests:
            served.talk(sent)
    log.close()
    return stream.getvalue().splitlines()


def test_the_combined_format() -> None:
    sent = request("/a?b=c", Referer="there", User_Agent='me "and" \\you', Authorization="Basic dTpw")
    (line,) = logged("", sent)
    pattern = (
        r'127\.0\.0\.1 - u \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /a\?b=c HTTP/1\.1" 201 5 "there" '
        r'"me \\"and\\" \\\\you"'
    )
    assert re.fullmatch(pattern, line), line


@pytest.mark.parametrize(
    ("format", "wanted"),
    [
        ("%a %h %l", r"127\.0\.0\.1 127\.0\.0\.1 -"),
        ("%A %p", r"127\.0\.0\.1 \d+"),
        ("%B %b", "5 5"),
        ("%m|%U|%q|%H", r"GET\|/p\|\?q=1\|HTTP/1\.1"),
        ("%s %>s %<s", "201 201 201"),
        ("%D %T %{ms}T %{us}T %{s}T", r"\d+ 0 \d+ \d+ 0"),
        ("%{X-In}i %{x-out}o %{None}i", r'in o\\" -'),
        ("%{a}C %{b}C", "1 -"),
        ("%{FIBERS_NOT_THERE}e", "-"),
        ("%{%Y}t %{sec}t %{msec_frac}t %{end:usec_frac}t", r"\d{4} \d{10} \d{3} \d{6}"),
        ("%P %{pid}P", rf"{os.getpid()} {os.getpid()}"),
        ("%k %X", r"0 \+"),
        ("%v %V", "h h"),
        ("%201s %!201s %404,500{X-In}i %!404,500{X-In}i", "201 - - in"),
        ("100%%", "100%"),
        ("%{c}a %{remote}p", r"127\.0\.0\.1 \d+"),
    ],
)
def test_directives(format: str, wanted: str) -> None:
    (line,) = logged(format, request("/p?q=1", X_In="in", Cookie="a=1"))
    assert re.fullmatch(wanted, line), line


@pytest.mark.parametrize("format", ["%z", "%{x}z", "a % b", "%"])
def test_formats_that_are_none(format: str) -> None:
    with pytest.raises(ValueError, match=r"known|begins no directive"):
        compile_format(format)


def test_what_a_client_sends_cannot_begin_a_line_or_end_a_field() -> None:
    sent = b'GET /"%0a HTTP/1.1\r\nHost: h\r\nUser-Agent: a\xff\tb"\\\r\n\r\n'
    (line,) = logged('"%r" "%{User-Agent}i"', sent)
    assert line == r'"GET /\"%0a HTTP/1.1" "a\xff\tb\"\\"'


def test_what_could_not_be_read_is_logged_too() -> None:
    refused, fine = logged('"%r" %s', b"GARBAGE\r\n\r\n", request())
    assert (refused, fine) == ('"-" 400', '"GET / HTTP/1.1" 201')


def test_json() -> None:
    (line,) = logged(JSON, request("/a?b", "POST", b"body", User_Agent="ä".encode().decode("latin-1")))
    told = json.loads(line)
    assert (told["method"], told["target"], told["status"], told["bytes"], told["client"]) == (
        "POST", "/a?b", 201, 5, "127.0.0.1",
    )  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", told["time"])
    assert not told["client_gone"]


def test_a_log_that_hangs_holds_up_nobody_and_counts_what_it_drops() -> None:
    held, release = threading.Event(), threading.Event()
    lines: list[str] = []

    def write(line: str) -> None:
        held.set()
        release.wait()
        lines.append(line)

    log = AccessLog(write, "%U", capacity=3)
    try:
        with site(service(), access_log=log) as served, served.connect() as client:
            client.write_all(request("/first"))
            client.read_until(b"hello")
            while not held.is_set():
                os.sched_yield()
            for number in range(10):
                client.write_all(request(f"/{number}"))
                client.read_until(b"hello")
            assert log.dropped == 7
            release.set()
    finally:
        release.set()
        log.close()
    assert lines[:4] == ["/first", "/0", "/1", "/2"]
    assert lines[4] == "# 7 requests are missing here: the log was too slow"
    assert repr(log) == "<AccessLog, 4 written, 7 dropped>"


def test_a_log_that_cannot_be_written_is_no_trouble_of_the_clients(caplog: pytest.LogCaptureFixture) -> None:
    def fail(line: str) -> None:
        raise OSError("no space left")

    log = AccessLog(fail, COMMON)
    with site(service(), access_log=log) as served:
        assert served.ask().status == 201
        assert served.ask().status == 201
    log.close()
    assert "no space left" in caplog.text
    assert log.dropped == 2


def test_a_file_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = AccessLog(path, "%U")
    with site(service(), access_log=log) as served:
        served.ask("/1")
        assert log.flush()
        path.rename(tmp_path / "old")
        served.server.renew()
        served.ask("/2")
    log.close()
    log.close()
    assert ((tmp_path / "old").read_text(), path.read_text()) == ("/1\n", "/2\n")


def test_a_log_of_the_servers_own_is_complete_when_it_has_stopped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with site(service(), access_log=str(path), log_format="%U") as served:
        served.talk(*(request(f"/{number}") for number in range(200)))
    assert path.read_text() == "".join(f"/{number}\n" for number in range(200))


def test_a_forked_child_writes_its_own(tmp_path: Path) -> None:
    code = """
import os, sys
from fibers.http import AccessLog, Request
from fibers.http.exchange import Exchange
from fibers.http.head import Head
log = AccessLog(sys.argv[1], "%U")
def note(path):
    log.note(Exchange(None, Head("GET", path, (1, 1))), ("", 0), 0.0, 1, False)
note("/parent")
log.flush()
pid = os.fork()
note("/child" if not pid else "/parent-again")
log.close()
if not pid:
    os._exit(0)
os.waitpid(pid, 0)
"""
    # Since 3.12 Python warns of what is tested here.
    done = run_python("-W", "ignore::DeprecationWarning", "-c", code, str(tmp_path / "log"))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted((tmp_path / "log").read_text().split()) == ["/child", "/parent", "/parent-again"]


def test_capacity_is_checked() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        AccessLog(io.StringIO(), capacity=0)
    assert Request is not None
