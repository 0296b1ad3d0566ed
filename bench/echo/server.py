"""An echo server.

`python -m bench.echo.server <contender>`; prints {"port": N, "pid": N} and serves until killed.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

from bench import material
from bench.runtimes import split


def main() -> None:
    """Listen, say where, hand the socket to the runtime."""
    runtime, flavour = split(sys.argv[1])
    serve = importlib.import_module(f"bench.runtimes.on_{runtime}").ECHO[flavour]
    material.raise_fd_limit()
    server = material.listener()
    address = {"port": server.getsockname()[1], "pid": os.getpid()}
    serve(server, lambda: print(json.dumps(address), flush=True))


if __name__ == "__main__":
    main()
