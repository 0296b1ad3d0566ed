"""A network of a test's own: a child process in a network namespace, in which it is root and may set up what it likes.

(netns.py needs no process, and has nothing but a loopback interface.)
"""

import functools
import shutil
import subprocess
import sys
from subprocess import CompletedProcess
from typing import Final

import pytest

from .process import environment

_UNSHARE: Final = ("unshare", "--user", "--map-root-user", "--net")


@functools.cache
def _problem() -> str | None:
    """Why it cannot be had here."""
    if sys.platform != "linux":
        return "network namespaces are a feature of Linux"
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return "the commands unshare and ip make the network: .ci/debian.sh"
    tried = subprocess.run([*_UNSHARE, "ip", "link", "add", "v0", "type", "veth"], capture_output=True, text=True)
    return f"this user may make no network: {tried.stderr.strip()}" if tried.returncode else None


def run_in_namespace(network: str, code: str, timeout: float = 60.0) -> CompletedProcess[str]:
    """Run Python code where there is nothing but `network`, shell commands that set it up. Skips if there is no way."""
    problem = _problem()
    if problem is not None:
        pytest.skip(problem)
    script = f'set -e\nip link set lo up\n{network}\nexec "$0" -c "$1"'
    return subprocess.run(
        [*_UNSHARE, "sh", "-c", script, sys.executable, code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(),
        check=False,
    )


#: A network behind `v0`, of both families, in which nobody answers: not even a query for the hardware address is sent.
SILENT: Final = """
ip link add v0 type veth peer name v1
ip link set v0 arp off up
ip link set v1 up
ip addr add 192.0.2.1/24 dev v0
ip addr add 2001:db8::1/64 dev v0 nodad
"""
