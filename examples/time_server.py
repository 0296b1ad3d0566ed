"""A server with all that it needs to live in production: limits, deadlines, a graceful end.

python examples/time_server.py [PORT [PROCESSES]]      then, elsewhere: nc 127.0.0.1 7000; SIGHUP reloads, SIGTERM ends it
python examples/time_server.py --check
"""

import logging
import os
import sys
import time

import fibers
from fibers.io import Stream, socket
from fibers.server import TCPServer

#: Seconds in which a client has to ask.
PATIENCE = 30.0


def tell(sock: socket.socket, address: object) -> None:
    """Answer each line: "time" or "pid"."""
    with fibers.move_on_after(PATIENCE):
        for line in Stream(sock).lines():
            answer = {b"time": time.ctime(), b"pid": str(os.getpid())}.get(line.strip(), "what?")
            sock.sendall(answer.encode() + b"\n")


def main(port: int, processes: int) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(process)d %(message)s")
    server = TCPServer(
        ("127.0.0.1", port), tell, processes=processes, max_connections=1000, max_connections_per_address=100
    )
    print("the end:", server.serve_forever())


def check() -> None:
    """Ask a few times, with a client that stays."""
    with TCPServer(("127.0.0.1", 0), tell, threads=2, graceful_timeout=0.1) as server:
        idle = socket.create_connection(server.address)
        idle.sendall(b"hello\n")
        print(Stream(idle).read_until(b"\n").decode().strip())
        with socket.create_connection(server.address) as client:
            client.sendall(b"pid\n")
            assert int(Stream(client).read_until(b"\n")) == os.getpid()
    idle.close()
    assert server.report is not None
    print(f"{len(server.report.cut)} was cut at the end")


if __name__ == "__main__":
    if "--check" in sys.argv:
        fibers.run(check)
    else:
        numbers = [int(each) for each in sys.argv[1:]]
        main(*(numbers + [7000, 1][len(numbers) :]))
