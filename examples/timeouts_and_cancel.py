"""How waiting ends early: a timeout of a socket, of a join, a cancelled fiber, a killed one.

    python examples/timeouts_and_cancel.py [--check]

Cancelled is a BaseException: `except Exception` does not catch it, `finally` and `with` work as ever. A cancelled fiber
gets it at each further call that would wait, so that it cannot linger by accident.
"""

import fibers
from fibers.io import socket


def socket_timeout() -> None:
    """`settimeout` means what it means in the standard library."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.05)
        try:
            ours.recv(100)
        except TimeoutError as error:
            print(f"recv: {error}")


def join_timeout() -> None:
    """The one who waits gives up; the fiber goes on, and may be waited for again."""
    slow = fibers.spawn(fibers.sleep, 0.1, name="slow")
    try:
        slow.join(timeout=0.01)
    except TimeoutError as error:
        print(f"join: {error}")
    slow.join()
    print(f"joined at last, done: {slow.done()}")


def cancel() -> None:
    """The fiber that waits is woken, cleans up and ends. Whoever asks for its result gets FiberCancelled."""

    def work() -> None:
        try:
            fibers.sleep(3600)
        finally:
            print("cleaning up")

    worker = fibers.spawn(work)
    fibers.yield_now()  # let it start: a fiber cancelled before that never runs
    worker.cancel()
    try:
        worker.result()
    except fibers.FiberCancelled as error:
        print(f"result: {error}")
    print(f"cancelled: {worker.cancelled()}")


def kill() -> None:
    """Throws an exception of one's choice, once. The fiber may handle it and go on."""

    def work() -> str:
        try:
            fibers.sleep(3600)
        except LookupError as error:
            fibers.sleep(0)
            return f"was told: {error}"
        return "was not told"

    worker = fibers.spawn(work)
    fibers.yield_now()
    worker.kill(LookupError("no need any more"))
    print(worker.result())


def main() -> None:
    """One after the other."""
    for part in (socket_timeout, join_timeout, cancel, kill):
        part()


if __name__ == "__main__":
    fibers.run(main)
