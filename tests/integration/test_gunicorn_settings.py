"""What becomes of gunicorn's settings, and of its own views of requests."""

from typing import Any

import pytest

pytest.importorskip("gunicorn", reason="pip install fibers-runtime[gunicorn]")

from gunicorn.config import Config
from support.http_serving import answer, site

from fibers.gunicorn.application import Application, RequestLog
from fibers.gunicorn.settings import problems, settings_of
from fibers.gunicorn.worker import SWITCH, wants
from fibers.http import Server
from fibers.http.hub import Settings


def config(**values: Any) -> Any:
    made = Config()
    for name, value in values.items():
        made.set(name, value)
    return made


def test_what_settings_become() -> None:
    base = Settings(max_body=None, handler_timeout=7.0)
    made = settings_of(config(worker_connections=10, keepalive=5, limit_request_line=100, limit_request_fields=3), base)
    assert (made.max_handlers, made.factor, made.keep_alive_timeout, made.close_after) == (10, 0.0, 5.0, None)
    assert (made.limits.line, made.limits.fields, made.limits.field) == (100, 3, 8190)
    assert (made.max_body, made.handler_timeout, made.proxy_protocol) == (None, 7.0, None)
    assert settings_of(config(keepalive=0), base).close_after == 1


def test_no_limit_is_the_largest_one() -> None:
    limits = settings_of(
        config(limit_request_line=0, limit_request_field_size=0, limit_request_fields=0), Settings()
    ).limits
    assert (limits.line, limits.field, limits.fields) == (8190, 8190, 32768)
    large = settings_of(config(limit_request_field_size=500_000), Settings()).limits
    assert large.field == 500_000
    assert large.head > 500_000


def test_who_sends_a_proxy_header() -> None:
    proxies = settings_of(config(proxy_protocol=True, proxy_allow_ips="10.0.0.0/8"), Settings()).proxy_protocol
    assert proxies is not None
    assert "10.1.1.1" in proxies
    assert "" in proxies  # a unix socket
    assert "127.0.0.1" not in proxies


def test_what_is_refused_and_what_is_left_out() -> None:
    assert problems(config()) == ([], [])
    errors, left_out = problems(
        config(strip_header_spaces=True, header_map="dangerous", threads=2, http_protocols="h2,h1")
    )
    assert [each.split(":")[0] for each in errors] == ["strip_header_spaces = True", "header_map = 'dangerous'"]
    assert [each.split(":")[0] for each in left_out] == ["threads = 2", "http_protocols with h2"]


def test_the_patch_can_be_left_out() -> None:
    assert wants({})
    assert wants({SWITCH: "Yes"})
    assert not wants({SWITCH: "0"})
    with pytest.raises(ValueError, match="FIBERS_GUNICORN_PATCH is 1 or 0, not 'perhaps'"):
        wants({SWITCH: "perhaps"})


class Worker:
    """What an application needs of one."""

    nr = 0
    aborted = False

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.log = self
        self.logged: list[Any] = []

    def access(self, response: Any, view: Any, environ: dict[str, Any], time: Any) -> None:
        self.logged.append(
            (response.status, response.status_code, response.sent, view.method, view.uri, time.total_seconds())
        )

    def debug(self, text: str, *args: Any) -> None:
        """What gunicorn's own hook does."""

    def exception(self, text: str, *args: Any) -> None:
        self.logged.append(text % args)


class Served:
    """An Application in the place of a handler with routes, so that a server takes it as it is."""

    takes_exchanges = True

    def __init__(self, application: Application) -> None:
        self.application = application

    def __call__(self, exchange: Any) -> None:
        self.application(exchange)


def app(environ: dict[str, Any], start: Any) -> list[bytes]:
    start("200 OK", [("Content-Length", "2"), ("Keep-Alive", "7"), ("Connection", "close")])
    return [b"ok"]


def test_what_hooks_see() -> None:
    seen: list[Any] = []

    def before(worker: Any, view: Any) -> None:
        seen.append((view.method, view.path, view.query, view.version, view.scheme, view.should_close(), view.fragment))
        seen.append(
            (dict(view.headers)["X-MARK"], view.trailers, view.peer_addr[0], view.remote_addr[0], view.body.read())
        )

    def after(worker: Any, view: Any, environ: dict[str, Any], response: Any) -> None:
        seen.append((environ["PATH_INFO"], response.status, response.sent, response.response_length))
        seen.append((response.headers_sent, response.should_close(), dict(response.headers)["Content-Length"]))
        raise ValueError("a hook that fails is nobody else's trouble")

    worker = Worker(config(pre_request=before, post_request=after))
    with site(Served(Application(worker, app, None)), access_log=None) as served:
        served.hub.log = RequestLog(worker)
        got = served.ask("/p?q", "POST", b"body", X_Mark="7")
        assert (got.status, got.body) == (200, b"ok")
        assert "keep-alive" not in got.fields  # of the connection, and so left out
        with served.connect() as client:
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n")
            assert answer(client).status == 400
    assert seen == [
        ("POST", "/p", "q", (1, 1), "http", False, ""),
        ("7", [], "127.0.0.1", "127.0.0.1", b"body"),
        ("/p", "200 OK", 2, 2),
        (True, False, "2"),
    ]
    assert worker.nr == 1
    assert worker.logged[0] == "Exception in post_request hook"
    assert worker.logged[1][:-1] == ("200 OK", 200, 2, "POST", "/p?q")
    assert worker.logged[2][:5:3] == ("400 Bad Request", "-")


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "Remote_User"])
def test_what_only_proxies_may_say(name: str) -> None:
    def tell(environ: dict[str, Any], start: Any) -> list[bytes]:
        start("200 OK", [])
        return [str(environ.get(f"HTTP_{name.upper()}")).encode()]

    for allowed, expected in (("127.0.0.1", b"/x"), ("10.0.0.1", b"None")):
        worker = Worker(config(forwarder_headers="SCRIPT_NAME,REMOTE_USER", forwarded_allow_ips=allowed))
        settings = settings_of(worker.cfg, Settings())
        with (
            site(Served(Application(worker, tell, None)), limits=settings.limits) as served,
            served.connect() as client,
        ):
            client.write_all(f"GET /x/y HTTP/1.1\r\nHost: a\r\n{name}: /x\r\nSome_Other: z\r\n\r\n".encode())
            assert answer(client).body == expected


def test_a_path_outside_of_the_script_name() -> None:
    worker = Worker(config(forwarder_headers="SCRIPT_NAME"))
    settings = settings_of(worker.cfg, Settings())
    with site(Served(Application(worker, app, None)), limits=settings.limits) as served, served.connect() as client:
        client.write_all(b"GET /other HTTP/1.1\r\nHost: a\r\nScript_Name: /x\r\n\r\n")
        assert answer(client).status == 500


def test_what_only_looks_like_a_script_name() -> None:
    def tell(environ: dict[str, Any], start: Any) -> list[bytes]:
        start("200 OK", [])
        return [f"{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}".encode()]

    worker = Worker(config())
    settings = settings_of(worker.cfg, Settings())
    with site(Served(Application(worker, tell, None)), limits=settings.limits) as served:
        assert served.ask("/x/y", Script_Name="/x").body == b"|/x/y"


def test_a_server_with_routes() -> None:
    routed = Server()
    routed.route("/hello/{name}")(lambda request, name: f"hello {name}")
    worker = Worker(config())
    with site(Served(Application(worker, routed, None))) as served:
        served.hub.log = RequestLog(worker)
        assert served.ask("/hello/you").body == b"hello you"
        assert served.ask("/nowhere").status == 404
    assert [each[:5] for each in worker.logged] == [
        ("200 OK", 200, 9, "GET", "/hello/you"), ("404 Not Found", 404, 14, "GET", "/nowhere"),
    ]  # fmt: skip
