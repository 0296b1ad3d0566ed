"""Servers of other people as peers: a real Redis and a real PostgreSQL, on loopback and on a unix socket.

A server lives in a folder of its own in /tmp, short enough for the name of a unix socket and open to the user that the
server runs as: PostgreSQL refuses to be root. It dies with the test process, however that ends (setpriv, on Linux).
Nothing tells when a server is ready except that it answers; so whoever starts one tries until it does.

Where a program is missing the tests skip and say what to install; on CI they fail instead.
"""

import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Final, NoReturn, Self

import pytest
from support import tls
from support.scale import IN_CI

#: Seconds that a server has for its start. On a busy machine initdb alone may take ten.
PATIENCE: Final = 60.0


def find(program: str, package: str, *folders: str) -> str:
    """The path of a server's program, looked for in PATH and `folders` (patterns). Skips where it is missing."""
    found = shutil.which(program)
    for folder in folders:
        found = found or next(iter(sorted(glob.glob(f"{folder}/{program}"), reverse=True)), None)
    if found is None:
        missing(f"{program} is missing: install the package {package} (on Debian .ci/debian.sh does)")
    return found


def missing(what: str) -> NoReturn:
    """Skip for want of `what`. CI installs what the tests need, so there it is a failure."""
    if IN_CI:
        pytest.fail(f"{what}; CI must not leave this out", pytrace=False)
    pytest.skip(what)


class Server:
    """One server: `command()` starts it in `folder`, as `user` (None: as who we are). It is started by `start()`."""

    def __init__(self, user: str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fibers-"))
        self.user = user
        self.host = "127.0.0.1"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        if user is not None:
            shutil.chown(self.folder, user)

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def path(self) -> str:
        """Of the unix socket."""
        raise NotImplementedError

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        """Start it, and wait until it answers. After `kill()`: on the same port again, with the same data."""
        give_up = time.monotonic() + PATIENCE
        fresh = not self.port
        while True:
            if fresh:
                self.port = free_port()  # somebody may take it before the server does: then the next one
            with open(self.folder / "log", "ab") as log:
                self.process = self.run(self.command(), log)
            while self.process.poll() is None and time.monotonic() < give_up:
                if self.answers():
                    return
                time.sleep(0.005)
            if time.monotonic() > give_up:
                self.kill()
                raise AssertionError(f"{self.command()} does not answer after {PATIENCE:g} s\n{self.log[-2000:]}")
            # What a killed server leaves behind may keep the next from starting, until the last of its children is gone.
            time.sleep(0.05)

    def run(self, command: list[str], output: IO[bytes]) -> "subprocess.Popen[bytes]":
        user, setpriv = self.user, shutil.which("setpriv")
        if setpriv is not None:
            words = [setpriv, "--pdeathsig", "KILL"]
            if user is not None:
                entry = pwd.getpwnam(user)
                words += ["--reuid", user, "--regid", str(entry.pw_gid), "--clear-groups"]
            command, user = [*words, "--", *command], None
        return subprocess.Popen(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=self.environment(),
            user=user,
            group=None if user is None else pwd.getpwnam(user).pw_gid,
            extra_groups=None if user is None else (),
            start_new_session=True,
        )

    def environment(self) -> dict[str, str]:
        """As little as a server needs."""
        return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}

    def answers(self) -> bool:
        """Is it ready? Asked from the outside."""
        raise NotImplementedError

    def kill(self) -> None:
        """End it as a crash would: nobody is told, nothing is flushed."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def mortal() -> list[str]:
    """Words before a command that has it die with this process, however that ends. (On Linux.)"""
    setpriv = shutil.which("setpriv")
    return [] if setpriv is None else [setpriv, "--pdeathsig", "KILL", "--"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Redis(Server):
    """What it has acknowledged is in its append-only file, and survives `kill()`."""

    def __init__(self) -> None:
        self.program = find("redis-server", "redis-server")
        super().__init__()

    @property
    def path(self) -> str:
        return str(self.folder / "socket")

    def command(self) -> list[str]:
        options = f"--bind {self.host} --port {self.port} --unixsocket {self.path} --appendonly yes --appendfsync no"
        return [self.program, *options.split(), "--save", "", "--dir", str(self.folder)]

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.path)
                probe.sendall(b"PING\r\n")
                return probe.recv(100) == b"+PONG\r\n"  # while it loads its file it says something else
            except OSError:
                return False


class PostgreSQL(Server):
    """Everybody is trusted, except the role `guarded`, who needs the password `PASSWORD` (SCRAM-SHA-256).

    With a certificate of support.tls, where there is an openssl to make one.
    """

    PASSWORD: Final = "pencil, 'quoted'"
    FOLDERS: Final = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/usr/pgsql-*/bin")

    def __init__(self) -> None:
        self.program = os.path.realpath(find("postgres", "postgresql", *self.FOLDERS))
        initdb = find("initdb", "postgresql", os.path.dirname(self.program), *self.FOLDERS)
        super().__init__(None if os.geteuid() else unprivileged())
        try:
            with open(self.folder / "log", "wb") as log:
                options = "--no-sync --auth=trust --username=fibers --encoding=UTF8 --locale=C"
                made = self.run([initdb, *options.split(), "--pgdata", str(self.data)], log).wait(PATIENCE)
            assert made == 0, self.log
            (self.data / "pg_hba.conf").write_text(
                "host all guarded all scram-sha-256\nlocal all all trust\nhost all all all trust\n"
            )
            self.settings = {
                "listen_addresses": self.host,
                "unix_socket_directories": str(self.folder),
                "max_connections": "230",
                "shared_buffers": "16MB",
                "dynamic_shared_memory_type": "mmap",  # /dev/shm is small in containers
                "fsync": "off",  # the machine does not crash here, only the server
                "max_wal_size": "64MB",
                "min_wal_size": "32MB",
                "autovacuum": "off",
            }
            if tls.OPENSSL is not None:
                self._put("server.pem", Path(tls.certificates().localhost).read_text())
                self.settings |= {"ssl": "on", "ssl_cert_file": "server.pem", "ssl_key_file": "server.pem"}
        except BaseException:
            self.close()
            raise

    def _put(self, name: str, text: str) -> None:
        file = self.data / name
        file.write_text(text)
        file.chmod(0o600)
        if self.user is not None:
            shutil.chown(file, self.user)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def path(self) -> str:
        return str(self.folder / f".s.PGSQL.{self.port}")

    def command(self) -> list[str]:
        options = [f"--{name}={value}" for name, value in self.settings.items()]
        return [self.program, "-D", str(self.data), "-p", str(self.port), *options]

    def answers(self) -> bool:
        """It writes into a file of its own who it is, and how far it has come."""
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except OSError:
            return False
        assert self.process is not None
        return lines[0] == str(self.process.pid) and "ready" in map(str.strip, lines)

    def close(self) -> None:
        """It ends its children: at once, without tidying up."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                pass
        super().close()


def unprivileged() -> str:
    """A user whom a server may be that refuses to be root."""
    for user in ("postgres", "nobody"):
        try:
            pwd.getpwnam(user)
        except KeyError:
            continue
        return user
    missing("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")
