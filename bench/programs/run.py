"""One contender under load: a process, wrk, and what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

APP: Final = Path(__file__).with_name("app.py")

#: How each contender is asked to run a program.
CONTENDERS: Final[dict[str, list[str]]] = {
    "fibers": ["-m", "fibers", "run"],
    "gevent": ["-m", "gevent.monkey"],
    "threads": [],
}
#: Seconds that wrk waits for an answer; who takes longer has an error.
PATIENCE: Final = 60


@dataclass(frozen=True, slots=True)
class Load:
    """What every contender is put under. Times in seconds, which wrk wants whole."""

    service: str
    redis_port: int
    connections: int
    warm: int
    seconds: int


def measure(contender: str, load: Load) -> dict[str, float]:
    """The figures of one process. Raises RuntimeError if it or wrk fails, or if a request does."""
    words = [
        sys.executable,
        *CONTENDERS[contender],
        str(APP),
        load.service,
        str(load.redis_port),
        str(load.connections),
    ]
    with tempfile.TemporaryFile("w+") as log:
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True) as child:
            try:
                assert child.stdout is not None
                port = child.stdout.readline().strip()
                if not port:
                    raise RuntimeError(f"it did not start: {_tail(log)}")
                # A few connections: those of a whole load would leave a thousand requests behind that nobody waits for.
                _wrk(port, 10, load.warm)
                before = _cpu(child.pid)
                figures = _wrk(port, load.connections, load.seconds)
                spent = _cpu(child.pid) - before
                if not figures["requests"]:
                    raise RuntimeError(f"no request was answered within {load.seconds} s: use --seconds")
                figures["cpu"] = spent / figures.pop("requests") * 1e3
                figures["memory"] = _peak(child.pid)
                return figures
            except RuntimeError as error:
                raise RuntimeError(f"{contender}: {error}; {_tail(log)}") from None
            finally:
                child.kill()


def _tail(log: IO[str]) -> str:
    log.seek(0)
    return log.read()[-1000:]


def _wrk(port: str, connections: int, seconds: int) -> dict[str, float]:
    """Milliseconds and requests a second."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise RuntimeError("wrk is missing: install the package wrk")
    done = subprocess.run(
        [
            *(wrk, "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"),
            *("--timeout", f"{PATIENCE}s", "--latency", f"http://127.0.0.1:{port}/"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    told = done.stdout
    if done.returncode:
        raise RuntimeError(f"wrk failed: {told}{done.stderr}")
    if "Socket errors" in told or "Non-2xx" in told:
        raise RuntimeError(f"requests have failed:\n{told}")
    return {
        "rate": _number(r"Requests/sec:\s+([\d.]+)", told),
        "requests": _number(r"(\d+) requests in", told),
        "p50": _time(r"50%\s+([\d.]+)(us|ms|s|m)\b", told),
        "p99": _time(r"99%\s+([\d.]+)(us|ms|s|m)\b", told),
    }


def _number(pattern: str, told: str) -> float:
    found = re.search(pattern, told)
    if found is None:
        raise RuntimeError(f"wrk did not say {pattern!r}:\n{told}")
    return float(found[1])


def _time(pattern: str, told: str) -> float:
    """In milliseconds."""
    found = re.search(pattern, told)
    if found is None:
        raise RuntimeError(f"wrk did not say {pattern!r}:\n{told}")
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[found[2]]


def _cpu(pid: int) -> float:
    """Seconds of CPU time that a process has used, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> float:
    """The peak of its resident memory, in MB."""
    return _number(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()) * 1024 / 1e6
