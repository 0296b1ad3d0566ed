"""A real gunicorn, with workers of `fibers.gunicorn`, and clients that count what they lose.

The application is in `APP`. gunicorn chooses its port, and says it in its log; so that is where a test learns what goes on.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gunicorn import config as gunicorn_config
from support.http_serving import answer, request
from support.process import environment
from support.servers import mortal

import fibers
from fibers.io import Stream, socket

#: Seconds after which a test gives up.
LIMIT = 30.0
#: Requests of a client on one connection.
KEPT = 50

APP = """
import os, time

def app(environ, start):
    path = environ["PATH_INFO"]
    if path == "/slow":
        time.sleep(0.05)
    elif path == "/ever":
        time.sleep(60)
    elif path == "/held-up":
        while True:
            pass
    elif path == "/fails":
        raise ValueError("on purpose")
    elif path == "/exits":
        raise SystemExit(3)
    elif path == "/file":
        start("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](open(__file__, "rb"))
    elif path == "/own":
        environ["gunicorn.socket"].sendall(b"HTTP/1.1 299 Own\\r\\n\\r\\nown")
        raise StopIteration
    elif path == "/environ":
        names = "wsgi.url_scheme", "REMOTE_ADDR", "SCRIPT_NAME", "SERVER_NAME", "SERVER_SOFTWARE", "HTTP_X_FORWARDED_FOR"
        text = repr({name: environ.get(name) for name in names})
        start("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
        return [text.encode()]
    body = environ["wsgi.input"].read()
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"%d %s" % (os.getpid(), body)]
"""


class Gunicorn:
    """A block in which gunicorn serves APP; at its end everything is killed. `config`: lines of its configuration file.

    `port`: where it is to listen, if it cannot tell which one it has chosen.
    """

    def __init__(self, folder: Path, *options: str, config: str = "", workers: int = 1, port: int = 0) -> None:
        self.folder = folder
        self.workers = workers
        (folder / "app.py").write_text(APP)
        (folder / "conf.py").write_text(config)
        self._log = (folder / "log").open("wb")
        no_control = ["--no-control-socket"] if _has_control() else []
        self.child = subprocess.Popen(
            [*mortal(), sys.executable, "-m", "gunicorn", "-k", "fibers.gunicorn.Worker", "--config", "conf.py",
             "--bind", f"127.0.0.1:{port}", "--workers", str(workers), *no_control, *options, "app:app"],
            cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            start_new_session=True,
        )  # fmt: skip
        self.port = port

    def __enter__(self) -> Self:
        try:
            self.port = self.port or int(self.wait_for(r"Listening at: https?://127\.0\.0\.1:(\d+)")[1])
            self.wait_until_serving(self.workers)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.child.poll() is None:
            kill_group(self.child.pid)
        self.child.wait()
        self._log.close()

    # -- what it says -------------------------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def wait_for(self, pattern: str, count: int = 1) -> "re.Match[str]":
        """Wait until the log has so many places that match, and return the last of them."""
        found: list[re.Match[str]] = []

        def said() -> bool:
            found[:] = re.finditer(pattern, self.log)
            return len(found) >= count

        self.until(said, pattern)
        return found[-1]

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Look again and again: other processes tell nobody."""
        deadline = time.monotonic() + LIMIT
        while not done():
            if time.monotonic() > deadline:
                raise AssertionError(f"this has not come about: {what}\n{self.log}")
            fibers.sleep(0.01)

    def wait_until_serving(self, count: int) -> list[bytes]:
        """Until so many workers have begun, since the start; the pids of all of them."""
        pattern = r"\[(\d+)\] \[INFO\] fibers is using the \w+ event loop"
        self.wait_for(pattern, count)
        return [pid.encode() for pid in re.findall(pattern, self.log)]

    def living(self, state: str) -> int:
        """How many workers have come to `state` (words of the log), and have not ended."""
        return self.log.count(state) - self.log.count("Worker exiting")

    def signal(self, number: int) -> None:
        self.child.send_signal(number)

    def end(self) -> int:
        """Wait for its end; the exit status."""
        self.until(lambda: self.child.poll() is not None, "the end of gunicorn")
        return self.child.wait()

    def stop(self) -> int:
        """As an operator does it."""
        self.signal(signal.SIGTERM)
        return self.end()

    # -- clients --------------------------------------------------------------------------------------------------------

    def connect(self, context: Any = None) -> Stream:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT)
        return Stream(context.wrap_socket(sock, server_hostname="localhost") if context else sock)

    def ask(self, target: str = "/", method: str = "GET", body: bytes = b"", **fields: str) -> Any:
        """One request on a connection of its own."""
        with self.connect() as client:
            client.write_all(request(target, method, body, **fields))
            return answer(client)


class Load:
    """Clients that ask without a pause, `KEPT` times on each connection, or as long as the server keeps it.

    What is lost is in `lost`, as sentences. A server that is gone when a client connects has lost nothing.
    """

    def __init__(self, gunicorn: Gunicorn, clients: int, target: str = "/", context: Any = None) -> None:
        self.gunicorn = gunicorn
        self.target = target
        self.answered = 0
        self.by_pid: dict[bytes, int] = {}
        self.lost: list[str] = []
        self.stopping = False
        self._context = context
        self._fibers = [fibers.spawn(self._ask) for _ in range(clients)]

    def stop(self) -> None:
        self.stopping = True
        self.join()

    def join(self) -> None:
        for fiber in self._fibers:
            fiber.join()

    def wait_for(self, answers: int) -> None:
        """Until so many more answers have come."""
        wanted = self.answered + answers
        self.gunicorn.until(lambda: self.answered >= wanted or not self.alive, f"{answers} more answers")

    @property
    def alive(self) -> bool:
        return not all(fiber.done() for fiber in self._fibers)

    def _ask(self) -> None:
        while not self.stopping:
            try:
                client = self.gunicorn.connect(self._context)
            except ConnectionError:
                return  # it is not there any more
            with client:
                self._talk(client)

    def _talk(self, client: Stream) -> None:
        number = 0
        while not self.stopping and number < KEPT:
            try:
                client.write_all(request(self.target, "POST", b"x" * 100))
                got = answer(client)
            except (OSError, EOFError) as error:
                # Who came in the very moment in which the last listener was closed has not been accepted by anybody.
                if number or not isinstance(error, ConnectionError) or not self.stopping:
                    self.lost.append(f"request {number} of a connection: {error!r}")
                return
            number += 1
            pid, _, body = got.body.partition(b" ")
            if got.status != 200 or body != b"x" * 100:
                self.lost.append(f"{got!r}")
            self.answered += 1
            self.by_pid[pid] = self.by_pid.get(pid, 0) + 1
            if got.fields.get("connection") == "close":
                return


def kill_group(pid: int) -> None:
    """The master and its workers: they are a session of their own."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _has_control() -> bool:
    return hasattr(gunicorn_config, "ControlSocketDisable")
