"""Real drivers and frameworks, in programs written for threads, on fibers by `python -m fibers run`.

Each program (programs/, and measuring.py there) lets many operations wait on a real server at once. They must take the time
of a few, in one thread of the system's. Then the server is killed: each operation in flight must raise an error of the
library's own, and succeed when it is tried again.

At full size (`make test-integration`) there are 200 operations, in every program, and each program runs on threads, too, to
show that it is not the programs that are special. Else there are fewer, and the programs start all at once: what takes the
time is to import them.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from support import tls
from support.mariadb import MariaDB
from support.nginx import Nginx
from support.process import environment
from support.scale import SCALE
from support.servers import PostgreSQL, Redis, Server

from fibers.eventloop import BACKEND, DEFAULT

HERE: Final = Path(__file__).parent
FULL: Final = SCALE >= 1
COUNT: Final = 200 if FULL else 50
#: Seconds that an operation waits on its server.
SECONDS: Final = 0.5 if FULL else 0.2
#: So many are made one after the other, to compare with.
FEW: Final = 3 if FULL else 1


class OfOurs(Server):
    """A server of this folder: it takes the port that it is to listen on."""

    program = ""

    def command(self) -> list[str]:
        return [sys.executable, str(HERE / f"{self.program}.py"), str(self.port)]

    def environment(self) -> dict[str, str]:
        return environment()

    def answers(self) -> bool:
        try:
            socket.create_connection(self.address, 1.0).close()
        except OSError:
            return False
        return True


class S3(OfOurs):
    """It begins to listen when it can answer."""

    program = "s3_server"


class Grpc(OfOurs):
    """So does this one."""

    program = "grpc_server"


def _http(server: Any) -> dict[str, Any]:
    return {"url": f"http://{server.host}:{server.port}"}


def _https(server: Any) -> dict[str, Any]:
    return {"url": f"https://localhost:{server.secure_port}", "authority": tls.certificates().ca}


class Case(NamedTuple):
    """A program, its server, and what it is told besides."""

    program: str
    server: type[Server]
    told: Callable[[Server], dict[str, Any]] = lambda server: {}


CASES: Final = {
    "psycopg2": Case("psycopg_2", PostgreSQL),
    "requests-tls": Case("requests_http", Nginx, _https),
    "flask-requests-redis": Case("flask_app", Redis),
    "django": Case("django_app", PostgreSQL),
    "sqlalchemy-psycopg2": Case("sqlalchemy_pool", PostgreSQL, lambda server: {"driver": "psycopg2"}),
    "pymysql": Case("pymysql_driver", MariaDB),
    "boto3": Case("boto3_s3", S3),
    "grpc": Case("grpc_calls", Grpc),
    # In those above, too: redis in Flask, urllib3 in requests, psycopg 3 in Django.
    "redis": Case("redis_py", Redis),
    "requests": Case("requests_http", Nginx, _http),
    "urllib3": Case("urllib3_http", Nginx, _http),
    "urllib3-tls": Case("urllib3_http", Nginx, _https),
    "psycopg": Case("psycopg_3", PostgreSQL),
    "sqlalchemy-psycopg": Case("sqlalchemy_pool", PostgreSQL, lambda server: {"driver": "psycopg"}),
}
#: What everybody waits for: no library is left out where the loop is the usual one.
USUAL: Final = list(CASES)[: 8 if BACKEND == DEFAULT else 2]
#: No event loop has a part in what threads do.
WAYS: Final = ("fibers", "threads") if BACKEND == DEFAULT else ("fibers",)
RUNS: Final = [f"{name}-{how}" for name in CASES for how in WAYS] if FULL else USUAL


class Program:
    """A program that has been started, and its server. It ends itself, and tells where it was, if it takes too long."""

    def __init__(self, case: Case, how: str, server: Server, log: Path) -> None:
        self.server = server
        self._log = log
        self.tasks: int | None = None
        asked = {"host": server.host, "port": server.port, "count": COUNT, "few": FEW, "seconds": SECONDS}
        asked |= case.told(server)
        runner = {"fibers": ["-m", "fibers", "run"], "threads": []}[how]
        with log.open("wb") as output:
            self.child = subprocess.Popen(
                [sys.executable, *runner, HERE / "programs" / f"{case.program}.py", json.dumps(asked)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                env=environment(),
            )

    def ready(self) -> None:
        """Wait until it has all that it needs."""
        if self.tasks is None:
            self.tasks = self.tells("ready")["tasks"]

    def hears(self) -> None:
        """Let it begin with its next step."""
        assert self.child.stdin is not None
        self.child.stdin.write("go\n")
        self.child.stdin.flush()

    def tells(self, step: str) -> dict[str, Any]:
        """What it has found out in this step."""
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        assert line, f"it ended before it was {step!r}:\n{self._log.read_text()[-3000:]}"
        facts: dict[str, Any] = json.loads(line)
        assert facts.pop("step") == step, facts
        return facts

    def ends(self) -> int:
        return self.child.wait()

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        for stream in (self.child.stdin, self.child.stdout):
            if stream is not None:
                stream.close()


class Programs:
    """Starts programs, each with a server of its own; PostgreSQL, which takes a second to make, is shared.

    So before the first of those that share it has it killed, all must be ready; and the others must survive that, too.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs: dict[str, Program | BaseException] = {}
        self._servers: list[Server] = []

    def start(self, run: str) -> None:
        """Start a program, or remember why it cannot be: a server that is not installed."""
        name, _, how = run.rpartition("-") if FULL else (run, "", "fibers")
        case = CASES[name]
        try:
            self._programs[run] = Program(case, how, self._server(case.server), self._folder / run)
        except pytest.skip.Exception as reason:
            self._programs[run] = reason

    def start_all(self, runs: list[str]) -> None:
        """Start programs at once."""
        for run in runs:
            self.start(run)
        for run in runs:
            try:
                self.get(run).ready()
            except (AssertionError, pytest.skip.Exception) as reason:
                self._programs[run] = reason

    def _server(self, kind: type[Server]) -> Server:
        for server in self._servers:
            if isinstance(server, PostgreSQL) and kind is PostgreSQL:
                return server
        server = kind()
        self._servers.append(server)
        server.start()
        return server

    def get(self, run: str) -> Program:
        if run not in self._programs:
            self.start(run)
        found = self._programs[run]
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        for program in self._programs.values():
            if isinstance(program, Program):
                program.close()
        for server in self._servers:
            server.close()


@pytest.fixture(scope="module")
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Those that this session has tests for, started; at full size each is started in its turn."""
    made = Programs(tmp_path_factory.mktemp("programs"))
    try:
        wanted = [
            str(item.callspec.params["run"])
            for item in request.session.items
            if isinstance(item, pytest.Function) and item.path == Path(__file__)
        ]
        if not FULL:
            made.start_all(wanted)
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("run", RUNS)
def test_many_operations_take_the_time_of_a_few_and_survive_the_servers_death(programs: Programs, run: str) -> None:
    program = programs.get(run)
    program.ready()
    if tasks := program.tasks:  # else the system does not tell
        assert tasks > COUNT if run.endswith("threads") else tasks < 10

    program.hears()
    facts = program.tells("compared")
    print(f"{run}: one in {facts['one']:.2f} s, {COUNT} at once in {facts['all']:.2f} s, by {tasks or '?'} threads")
    assert facts["done"] == COUNT
    assert facts["all"] < COUNT * facts["one"] / 4, facts

    program.hears()
    program.tells("waiting")
    program.server.kill()
    facts = program.tells("failed")
    assert len(facts["failures"]) == facts["expected"], facts
    program.server.start()
    program.tells("recovered")
    assert program.ends() == 0
    program.close()
