"""The status page: three forms of the same exact numbers, for those who may see them."""

import re
from pathlib import Path

from support.browser import look_at
from support.http_serving import Site, answer, request, site
from support.once import once

import fibers
from fibers.http import Request, Server
from fibers.http.census import NAMES


def service() -> Server:
    server = Server()
    server.route("/sleep")(lambda request: fibers.sleep(60))
    server.route("/body", methods=["POST"])(lambda request: request.read())
    server.route("/large")(lambda request: bytes(20_000_000))
    server.route("/upgrade")(upgrade)
    server.otherwise(lambda request: "the application's")
    return server


def upgrade(request: Request) -> None:
    request.upgrade("x")
    fibers.sleep(60)


def auto(served: Site) -> dict[str, str]:
    lines = served.ask("/server-status?auto").body.decode().splitlines()
    return dict(line.split(": ", 1) for line in lines)


def test_each_state_is_counted_and_their_sum_is_the_number_of_connections() -> None:
    sent = {
        "accepted": b"",
        "head": b"GET / HT",
        "keep-alive": request("/"),
        "body": request("/body", "POST", b"body")[:-1],
        "writing": request("/large"),
        "closing": b"NONSENSE\r\n\r\n",
        "upgraded": request("/upgrade", Upgrade="x", Connection="Upgrade"),
        "running": request("/sleep"),
        "queued": request("/sleep"),
    }
    options = {"status": "/server-status", "max_handlers": 3, "linger": 60.0, "graceful_timeout": 0.0}
    with site(service(), **options) as served:
        clients = []
        books = served.hub.census
        for number, (name, data) in enumerate(sent.items()):
            if name == "queued":  # all handlers are busy now
                more = served.connect()
                more.write_all(request("/sleep"))
                clients.append(more)
                while books.count(NAMES.index("running")) != 2:
                    fibers.sleep(0)
            client = served.connect()
            client.write_all(data)
            if name == "keep-alive":
                answer(client)
            clients.append(client)
            while books.count(NAMES.index(name)) < 1 or books.open() < number + 1:
                fibers.sleep(0.001)
        counted = {name: books.count(at) for at, name in enumerate(NAMES)}
        assert counted == {**dict.fromkeys(sent, 1), "running": 2, "tls": 0}
        assert books.open() == len(clients)
        for client in clients:
            client.close()


def test_the_three_forms_tell_the_same() -> None:
    with site(service(), status="/server-status", access_log=lambda line: None) as served, served.connect() as client:
        client.write_all(request("/a"))
        answer(client)
        told = auto(served)
        assert (told["Total Accesses"], told["ConnsTotal"], told["ConnsKeepAlive"], told["BusyWorkers"]) == (
            "2",
            "2",
            "1",
            "1",
        )
        states = ["Conns" + "".join(map(str.title, name.split("-"))) for name in NAMES]
        assert sum(int(told[state]) for state in states) == 2
        prometheus = served.ask("/server-status?prometheus")
        assert prometheus.fields["content-type"].startswith("text/plain; version=0.0.4")
        text = prometheus.body.decode()
        assert 'fibers_http_connections{loop="0",state="keep-alive"} 1\n' in text
        assert "\nfibers_http_requests_total 3\n" in text
        for line in text.splitlines():
            assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{(\w+=\"[^\"]*\",?)+\})? [0-9.e+-]+", line), line
        page = served.ask("/server-status")
        assert page.fields["content-type"] == "text/html; charset=utf-8"
        assert '<td id="open">2</td>' in page.body.decode()
        assert served.ask("/server-status", "HEAD").status == 200
        assert served.ask("/server-status", "POST").fields["allow"] == "GET, HEAD"


def test_others_find_the_application_there() -> None:
    with site(service(), status="/server-status", status_from=["10.0.0.0/8"]) as served:
        assert served.ask("/server-status").body == b"the application's"
    with site(service(), status="/s", forwarded_from=["127.0.0.1"]) as served:
        assert served.ask("/s", X_Forwarded_For="1.2.3.4").body == b"the application's"
        assert served.ask("/s").body != b"the application's"
    with site(service()) as served:
        assert served.ask("/server-status").body == b"the application's"


def test_all_loops_are_counted() -> None:
    with site(service(), status="/server-status", threads=3) as served:
        clients = [served.connect() for _ in range(12)]
        for client in clients:
            client.write_all(request("/a"))
            answer(client)
        told = auto(served)
        assert (told["Loops"], told["Total Accesses"], told["ConnsTotal"]) == ("3", "13", "13")
        page = served.ask("/server-status").body.decode()
        assert "<th>loop 2</th>" in page
        for client in clients:
            client.close()


@once
def test_a_browser_shows_it(tmp_path: Path) -> None:
    with site(service(), status="/server-status") as served, served.connect() as client:
        client.write_all(request("/a"))
        answer(client)
        host, port = served.server.address[:2]
        shown = look_at(f"http://{host}:{port}/server-status", tmp_path, "server-status", 900, 900)
    assert "Server status" in shown
    assert re.search(r"keep-alive is idle between two requests 1 ", shown), shown
    assert re.search(r"running a handler is at work 1 ", shown), shown
