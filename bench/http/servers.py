"""Who is compared: the commands that serve the application of bench/http/apps on a port of the loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from bench.echo.run import PYTHON, ROOT
from bench.http.apps import HELLO, LARGE
from bench.material import BACKLOG

SUBJECT = "fibers"
THREADS, MANY_THREADS = 8, 512
KEPT = 600
"""Seconds that an idle connection is kept: longer than any of this takes."""
MOST = 20_000
"""Connections that a server is told to hold."""


class Place(NamedTuple):
    """What a command is made for: a port, a folder for its files, and threads if it has a pool of them."""

    port: int
    folder: Path
    threads: int

    @property
    def address(self) -> str:
        """As most servers want it."""
        return f"127.0.0.1:{self.port}"


class Server(NamedTuple):
    """`lacks` says what is missing for it here, or ""; `sleeps`: has it handlers that can wait?"""

    name: str
    command: Callable[[Place], list[str]]
    lacks: Callable[[], str]
    sleeps: bool = True


def modules(*names: str) -> Callable[[], str]:
    """Needs these modules."""

    def lacking() -> str:
        absent = [name for name in names if find_spec(name) is None]
        return f"not installed: {', '.join(absent)}" if absent else ""

    return lacking


def program(name: str) -> Callable[[], str]:
    """Needs this program."""
    return lambda: "" if shutil.which(name) else f"{name} is not installed"


def fibers(place: Place) -> list[str]:
    """Ours, as its users start it."""
    return [
        *PYTHON,
        "fibers",
        "serve",
        "bench.http.apps.in_fibers:app",
        "--bind",
        place.address,
        "--keep-alive",
        str(KEPT),
    ]


def gunicorn(worker: str) -> Callable[[Place], list[str]]:
    """With its C parser, which it takes by itself if it is there."""

    def command(place: Place) -> list[str]:
        options = {"worker-class": worker, "workers": 1, "worker-connections": MOST, "backlog": BACKLOG}
        options |= {"keep-alive": KEPT, "log-level": "error", "bind": place.address}
        if worker == "gthread":
            options["threads"] = place.threads
        return [*PYTHON, "gunicorn", *flags(options), "bench.http.apps.in_threads:app"]

    return command


def pywsgi(place: Place) -> list[str]:
    """gevent's own server."""
    return [*PYTHON, "bench.http.apps.in_gevent", str(place.port)]


def waitress(place: Place) -> list[str]:
    """With poll(2): select(2) ends at 1,024."""
    options = {"listen": place.address, "threads": place.threads, "connection-limit": MOST, "backlog": BACKLOG}
    options |= {"channel-timeout": KEPT}
    return [*PYTHON, "waitress", *flags(options), "--asyncore-use-poll", "bench.http.apps.in_threads:app"]


def uvicorn(loop: str) -> Callable[[Place], list[str]]:
    """With httptools, on asyncio's own loop or on uvloop."""

    def command(place: Place) -> list[str]:
        options = {"loop": loop, "http": "httptools", "ws": "none", "lifespan": "off", "port": place.port}
        options |= {"log-level": "error", "backlog": BACKLOG, "timeout-keep-alive": KEPT}
        return [*PYTHON, "uvicorn", *flags(options), "--no-access-log", "bench.http.apps.in_asyncio:app"]

    return command


def granian(place: Place) -> list[str]:
    """A WSGI application in threads, below a server in Rust."""
    options = {"interface": "wsgi", "host": "127.0.0.1", "port": place.port, "workers": 1, "http": "1"}
    options |= {"blocking-threads": place.threads, "backlog": BACKLOG, "log-level": "error", "backpressure": MOST}
    return [*PYTHON, "granian", *flags(options), "--no-ws", "bench.http.apps.in_threads:app"]


NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr crit;
worker_processes 1;
worker_rlimit_nofile {most};
{user}
events {{ worker_connections {most}; }}
http {{
    access_log off;
    sendfile on;
    open_file_cache max=100;
    default_type text/plain;
    keepalive_timeout {kept};
    keepalive_requests 1000000000;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    server {{
        listen 127.0.0.1:{port} backlog={backlog};
        location = / {{ return 200 "{hello}"; }}
        location = /10k {{ alias {folder}/10k; }}
    }}
}}
"""


def nginx(place: Place) -> list[str]:
    """Answers out of its configuration, and a file: no application is involved."""
    (place.folder / "10k").write_bytes(LARGE)
    settings = NGINX.format(
        folder=place.folder,
        port=place.port,
        most=MOST,
        kept=KEPT,
        backlog=BACKLOG,
        hello=HELLO.decode().replace("\n", "\\n"),
        user="user root;" if os.getuid() == 0 else "",
    )
    path = place.folder / "nginx.conf"
    path.write_text(settings, encoding="utf-8")
    return [shutil.which("nginx") or "nginx", "-e", "stderr", "-c", str(path)]


def go(place: Place) -> list[str]:
    """net/http, built on first use."""
    binary = place.folder / "http-go"
    if not binary.exists():
        caches = {"GOCACHE": str(place.folder / "go-cache"), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
        command = ["go", "build", "-o", str(binary), str(ROOT / "bench" / "limit" / "http.go")]
        built = subprocess.run(command, env={**os.environ, **caches}, capture_output=True, text=True, check=False)
        if built.returncode != 0:
            raise RuntimeError(f"go build failed: {built.stderr.strip()}")
    return [str(binary), str(place.port)]


def flags(options: dict[str, object]) -> list[str]:
    """A dict as options of a command."""
    return [f"--{name}={value}" for name, value in options.items()]


SERVERS = {
    server.name: server
    for server in (
        Server(SUBJECT, fibers, lambda: ""),
        Server("gunicorn gevent", gunicorn("gevent"), modules("gunicorn", "gevent")),
        Server("gunicorn gthread", gunicorn("gthread"), modules("gunicorn")),
        Server("gevent.pywsgi", pywsgi, modules("gevent")),
        Server("waitress", waitress, modules("waitress")),
        Server("uvicorn", uvicorn("asyncio"), modules("uvicorn", "httptools")),
        Server("uvicorn uvloop", uvicorn("uvloop"), modules("uvicorn", "httptools", "uvloop")),
        Server("granian", granian, modules("granian")),
        Server("nginx", nginx, program("nginx"), sleeps=False),
        Server("Go net/http", go, program("go")),
    )
}
"""By name, in the order of the tables."""

DISTRIBUTIONS = (
    "fibers-runtime",
    "greenlet",
    "gunicorn",
    "gunicorn-h1c",
    "gevent",
    "waitress",
    "uvicorn",
    "httptools",
    "uvloop",
    "granian",
)


def program_versions() -> dict[str, str]:
    """Of the programs that are no Python packages."""
    found = {}
    for name, command in {"nginx": ["nginx", "-v"], "go": ["go", "version"], "wrk": ["wrk", "-v"]}.items():
        if shutil.which(name):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            found[name] = version_in((done.stdout + done.stderr).splitlines()[0])
    return found


def version_in(line: str) -> str:
    """The word with a number in it: nginx/1.22.1, debian/4.1.0-3, go1.19.8."""
    words = [word for word in line.replace("/", " ").split() if any(c.isdigit() for c in word)]
    return words[0].removeprefix("go") if words else line


if __name__ == "__main__":  # run one by hand: python -m bench.http.servers NAME PORT FOLDER
    chosen, port, folder = sys.argv[1:]
    line = SERVERS[chosen].command(Place(int(port), Path(folder).resolve(), THREADS))
    os.execvp(line[0], line)
