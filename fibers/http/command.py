"""`python -m fibers serve module:app`: an application as a program.

`module:app` names an object: a WSGI application, a `Server` with routes, or (with brackets, `module:make_app()`) a function
that makes one. With `--reload` the program watches the files of the modules that it has loaded and starts itself anew when
one of them changes: for developing only.
"""

import argparse
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable
from time import sleep as sleep_thread
from typing import Any, Final

from .logformat import JSON
from .serving import HttpServer

#: Seconds between two looks at the files, with --reload.
LOOK: Final = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `serve`."""
    add = parser.add_argument
    add(
        "app", metavar="module:app", help="the application: a WSGI callable, a fibers.http.Server, or module:make_app()"
    )
    add(
        "--bind",
        "-b",
        action="append",
        metavar="ADDRESS",
        help="host:port, or unix:/path; may be repeated (127.0.0.1:8000)",
    )
    add("--threads", type=int, default=1, metavar="N", help="event loops, each in a thread (1)")
    add("--processes", type=int, default=1, metavar="N", help="processes, each with that many threads (1)")
    add("--reload", action="store_true", help="start anew when a source file changes; for developing")
    add("--chdir", metavar="FOLDER", help="go there first; modules are looked for there (the current folder)")
    add("--certificate", metavar="FILE", help="HTTPS with this certificate chain (PEM)")
    add("--key", metavar="FILE", help="its key, if that is in a file of its own")
    add("--access-log", metavar="FILE", help="where requests are logged; - is standard output")
    add("--log-format", default="", metavar="FORMAT", help=f"Apache's directives, or {JSON} (the combined format)")
    add("--status", metavar="PATH", help="a status page, for this machine only, as /server-status")
    add(
        "--forwarded-from",
        default="",
        metavar="NETWORKS",
        help="proxies that are believed in X-Forwarded-For, by commas",
    )
    add(
        "--forwarded-dialect",
        choices=["x-forwarded", "forwarded"],
        default="x-forwarded",
        help="what they speak (x-forwarded)",
    )
    add("--proxy-protocol-from", default="", metavar="NETWORKS", help="peers that send a PROXY header, by commas")
    add("--max-connections-per-address", type=int, metavar="N", help="of one client in each process (no limit)")
    add("--max-requests", type=int, metavar="N", help="replace a process after about so many requests")
    add("--max-handlers", type=int, default=1000, metavar="N", help="requests handled at once in a loop (1000)")
    add("--max-body", type=int, default=1 << 30, metavar="BYTES", help="the largest body of a request (1 GiB)")
    add("--keep-alive", type=float, default=75.0, metavar="S", help="seconds that an idle connection is kept (75)")
    add("--graceful-timeout", type=float, default=30.0, metavar="S", help="seconds that a stop leaves to requests (30)")


def load(name: str) -> Any:
    """The object that `module:attribute` or `module:function()` names. Raises ValueError if there is none."""
    module_name, colon, path = name.partition(":")
    if not colon or not path or not module_name:
        raise ValueError(f"{name!r} is not module:app")
    calls = path.endswith("()")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ValueError(f"there is no module {module_name!r} in {os.getcwd()} or sys.path") from error
        raise
    for part in path.removesuffix("()").split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ValueError(f"{module_name} has no {path.removesuffix('()')!r}") from None
    return found() if calls else found


def run(options: argparse.Namespace) -> int:
    """Serve. 0 after a stop, 1 if it could not begin."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the server takes it: there is nothing to renew yet
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if options.chdir:
        os.chdir(options.chdir)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        server = HttpServer(
            load(options.app),
            options.bind or ["127.0.0.1:8000"],
            tls=(options.certificate, options.key) if options.certificate else None,
            access_log=options.access_log,
            log_format=options.log_format,
            status=options.status,
            forwarded_from=_split(options.forwarded_from),
            forwarded_dialect=options.forwarded_dialect,
            proxy_protocol_from=_split(options.proxy_protocol_from),
            max_connections_per_address=options.max_connections_per_address,
            max_requests=options.max_requests,
            threads=options.threads,
            processes=options.processes,
            graceful_timeout=options.graceful_timeout,
            max_handlers=options.max_handlers,
            max_body=options.max_body,
            keep_alive_timeout=options.keep_alive,
            on_worker_start=None,
        )
        if options.reload:
            if options.processes > 1:
                raise ValueError("--reload is for one process")
            watch = _Watch(server)
            threading.Thread(target=watch.run, name="watches sources", daemon=True).start()
        if options.processes == 1:
            server.start()
            print(f"serving {options.app} on {', '.join(map(_shown, server.addresses))}", flush=True)
        server.serve_forever()
    except (OSError, ValueError, TypeError) as error:
        print(f"python -m fibers serve: {error}", file=sys.stderr)
        return 1
    finally:
        if "server" in locals():
            server.close_log()
    if options.reload and watch.changed:
        print(f"{watch.changed} has changed: starting anew", flush=True)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return 0


class _Watch:
    """Stops the server when a file of a loaded module changes."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self.changed = ""

    def run(self) -> None:
        seen: dict[str, int] = {}
        while not self.changed:
            for path in _sources():
                try:
                    stamp = os.stat(path).st_mtime_ns
                except OSError:
                    continue
                if seen.setdefault(path, stamp) != stamp:
                    self.changed = path
                    self._server.request_stop(1.0)
                    return
            sleep_thread(LOOK)


def _sources() -> Iterable[str]:
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if path and path.endswith(".py"):
            yield path


def _split(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _shown(address: Any) -> str:
    if not isinstance(address, tuple):
        return f"unix:{address}"
    return f"[{address[0]}]:{address[1]}" if ":" in str(address[0]) else f"{address[0]}:{address[1]}"
