"""A real gunicorn with our worker: what it serves, and that no request is lost when processes come and go."""

import ast
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import tls
from support.gunicorn_program import Gunicorn, Load
from support.http_serving import answer, request
from support.once import once
from support.scale import scaled
from support.servers import free_port

import fibers
from fibers.io import ssl

pytest.importorskip("gunicorn", reason="pip install fibers-runtime[gunicorn]")

#: Clients at once, and requests between two events.
CLIENTS = scaled(200, least=20)
REQUESTS = scaled(20_000, least=300)

RELOADS = scaled(20, least=1)

CONFIG = """
def pre_request(worker, req):
    worker.log.info("before %s %s", req.method, req.path)

def post_request(worker, req, environ, resp):
    worker.log.info("after %s %s: %s, %s bytes", req.method, environ.get("PATH_INFO"), resp.status, resp.sent)
"""


def test_load_through_reloads_and_the_end(tmp_path: Path) -> None:
    """Workers are replaced again and again under load, then all of it is stopped: nobody's request is lost."""
    with Gunicorn(tmp_path, workers=2) as gunicorn:
        load = Load(gunicorn, CLIENTS)
        load.wait_for(REQUESTS)
        for generation in range(2, RELOADS + 2):
            gunicorn.signal(signal.SIGHUP)
            pids = set(gunicorn.wait_until_serving(2 * generation))
            gunicorn.until(lambda pids=pids: pids == set(load.by_pid), "answers of all workers")  # type: ignore[misc]
        gunicorn.wait_for("Worker exiting", 2 * RELOADS)
        load.wait_for(REQUESTS)
        load.stopping = True
        gunicorn.signal(signal.SIGTERM)
        load.join()
        assert gunicorn.end() == 0
        assert load.lost == []
        assert load.answered >= 2 * REQUESTS
        assert "graceful timeout" not in gunicorn.log
        assert not re.search(r"\[(ERROR|CRITICAL)\]", gunicorn.log)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    options = ("--access-logfile", "access", "--keep-alive", "5", "--forwarded-allow-ips", "127.0.0.1")
    format = ("--access-logformat", '%(m)s %(U)s %(s)s %(b)s "%({x-mark}i)s" %({content-type}o)s')
    with Gunicorn(tmp_path_factory.mktemp("gunicorn"), *options, *format, config=CONFIG) as gunicorn:
        yield gunicorn


@once
def test_what_a_request_gets(plain: Gunicorn) -> None:
    with plain.connect() as client:
        for _ in range(3):  # on one connection
            client.write_all(request("/", "POST", b"body", X_Mark="7"))
            got = answer(client)
            assert (got.status, got.body.partition(b" ")[2]) == (200, b"body")
            assert "connection" not in got.fields
    assert plain.ask("/file").body == (plain.folder / "app.py").read_bytes()
    plain.wait_for(r"after POST /: 200 OK, \d+ bytes", 3)
    plain.until(lambda: "POST / 200 " in (plain.folder / "access").read_text(), "a line in the access log")
    assert re.search(r'POST / 200 \d+ "7" text/plain\n', (plain.folder / "access").read_text())


@once
def test_errors_of_the_application(plain: Gunicorn) -> None:
    assert plain.ask("/fails").status == 500
    assert plain.ask("/exits").status == 500
    plain.wait_for("ValueError: on purpose")
    plain.wait_for("Error handling request GET /exits")
    plain.wait_for("after GET /fails: ")
    with plain.connect() as client:
        client.write_all(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n")
        assert answer(client).status == 400
    assert answer_by_itself(plain) == b"own"


def answer_by_itself(gunicorn: Gunicorn) -> bytes:
    with gunicorn.connect() as client:
        client.write_all(request("/own"))
        return client.read_all().partition(b"\r\n\r\n")[2]


@once
def test_whom_it_believes(plain: Gunicorn) -> None:
    def environ(**fields: Any) -> dict[str, str]:
        found: dict[str, str] = ast.literal_eval(plain.ask("/environ", **fields).body.decode())
        return found

    assert environ()["wsgi.url_scheme"] == "http"
    told = environ(X_Forwarded_Proto="https", X_Forwarded_For="10.1.1.1")
    assert (told["wsgi.url_scheme"], told["REMOTE_ADDR"], told["HTTP_X_FORWARDED_FOR"]) == (
        "https", "127.0.0.1", "10.1.1.1",
    )  # fmt: skip
    assert told["SERVER_NAME"] == "127.0.0.1"
    assert told["SERVER_SOFTWARE"].startswith("gunicorn")
    assert plain.ask("/", X_Forwarded_Proto="https", X_Forwarded_Ssl="off").status == 400
    with plain.connect() as client:
        client.write_all(b"GET /under/environ HTTP/1.1\r\nHost: x\r\nSCRIPT_NAME: /under\r\n\r\n")
        assert ast.literal_eval(answer(client).body.decode())["SCRIPT_NAME"] == "/under"


# -- what mostly waits for a clock: all at once


@once
@tls.needs_openssl
def test_side_by_side(tmp_path: Path) -> None:
    with fibers.TaskGroup() as group:
        for scenario in (
            who_holds_up_the_thread_is_killed,
            who_waits_lives_and_is_cut_before_the_master_kills,
            an_impatient_end,
            a_changed_file_is_served,
            workers_are_replaced_after_so_many_requests,
            tls_with_listeners_of_their_own,
            what_cannot_be_done_is_said_at_the_start,
        ):
            (tmp_path / scenario.__name__).mkdir()
            group.spawn(scenario, tmp_path / scenario.__name__)


def who_holds_up_the_thread_is_killed(folder: Path) -> None:
    with Gunicorn(folder, "--timeout", "2") as gunicorn:
        pid = gunicorn.ask("/").body.split()[0]
        with gunicorn.connect() as client:
            client.write_all(request("/held-up"))
            assert client.read_all() == b""
        gunicorn.wait_for("WORKER TIMEOUT")
        gunicorn.wait_for(r'app\.py", line \d+, in app')  # where it hung
        gunicorn.wait_until_serving(2)
        assert gunicorn.ask("/").body.split()[0] != pid


def who_waits_lives_and_is_cut_before_the_master_kills(folder: Path) -> None:
    with Gunicorn(folder, "--timeout", "2", "--graceful-timeout", "1") as gunicorn:
        waits = fibers.spawn(gunicorn.ask, "/ever")
        pid = gunicorn.ask("/").body.split()[0]
        fibers.sleep(3.2)  # the master looks once a second
        assert gunicorn.ask("/").body.split()[0] == pid
        assert not waits.done()
        assert gunicorn.stop() == 0
        assert isinstance(waits.exception(), (OSError, EOFError))
        assert re.search("graceful timeout.*GET /ever", gunicorn.log)
        assert "SIGKILL" not in gunicorn.log


def a_changed_file_is_served(folder: Path) -> None:
    with Gunicorn(folder, "--reload", "--reload-engine", "poll") as gunicorn:
        pid = gunicorn.ask("/").body.split()[0]
        (folder / "app.py").write_text((folder / "app.py").read_text() + "\n")
        gunicorn.wait_until_serving(2)
        assert gunicorn.ask("/").body.split()[0] != pid


def an_impatient_end(folder: Path) -> None:
    with Gunicorn(folder) as gunicorn:
        waits = fibers.spawn(gunicorn.ask, "/ever")
        gunicorn.ask("/")
        gunicorn.signal(signal.SIGQUIT)
        assert gunicorn.end() == 0
        assert isinstance(waits.exception(), (OSError, EOFError))


def workers_are_replaced_after_so_many_requests(folder: Path) -> None:
    options = ("--max-requests", str(REQUESTS // 4), "--max-requests-jitter", "20")
    with Gunicorn(folder, *options, workers=2) as gunicorn:
        load = Load(gunicorn, 5)
        gunicorn.wait_for("Autorestarting worker", 3)
        gunicorn.wait_until_serving(5)
        load.stop()
        assert load.lost == []
        # Who has just been forked has the master's signal handlers for a moment, and would not hear of the end.
        for state in ("Booting worker", "fibers is using"):
            gunicorn.until(lambda state=state: gunicorn.living(state) == 2, "two workers")  # type: ignore[misc]
        assert gunicorn.stop() == 0


def tls_with_listeners_of_their_own(folder: Path) -> None:
    files = tls.certificates()
    context = ssl.create_default_context(cafile=files.ca)
    with Gunicorn(folder, "--certfile", files.localhost, "--reuse-port", port=free_port()) as gunicorn:
        load = Load(gunicorn, 5, "/slow", context)
        load.wait_for(20)
        load.stopping = True
        gunicorn.signal(signal.SIGTERM)
        load.join()
        assert load.lost == []
        assert gunicorn.end() == 0


def what_cannot_be_done_is_said_at_the_start(folder: Path) -> None:
    gunicorn = Gunicorn(folder, "--protocol", "uwsgi", "--threads", "4")
    try:
        assert gunicorn.end() == 1
        assert "protocol = 'uwsgi': only HTTP is spoken here" in gunicorn.log
        assert "threads = 4: each request has a fiber" in gunicorn.log
    finally:
        gunicorn.__exit__(None, None, None)
