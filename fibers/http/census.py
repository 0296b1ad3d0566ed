"""What the connections of a server are doing: one state each, and an exact count of each state.

The sum of the counts is the number of open connections: every connection enters once, by `enter`, changes by `change`, and
leaves once, by `leave`. There is no other way to change a state, so the counts cannot drift.
"""

from typing import Final

#: The states, in the order in which a connection may come through them.
ACCEPTED: Final = 0  # has not said anything yet
TLS: Final = 1  # shaking hands
HEAD: Final = 2  # the head of a request has begun to come in
QUEUED: Final = 3  # its request has arrived, and waits until a handler is free
RUNNING: Final = 4  # a handler is at work
BODY: Final = 5  # a handler waits for the body of the request
WRITING: Final = 6  # the handler is done, and the client has not taken all of the response
KEEP_ALIVE: Final = 7  # waits for the next request
CLOSING: Final = 8  # the response has gone out; waits until the client has read it
UPGRADED: Final = 9  # speaks another protocol, and is somebody else's

NAMES: Final = (
    "accepted", "tls", "head", "queued", "running", "body", "writing", "keep-alive", "closing", "upgraded",
)  # fmt: skip


class Census:
    """The counts of one loop. For its thread; others may read."""

    __slots__ = ("accepted_total", "counts", "requests_total")

    def __init__(self) -> None:
        self.counts = [0] * len(NAMES)
        self.accepted_total = 0
        self.requests_total = 0

    def open(self) -> int:
        """How many connections there are."""
        return sum(self.counts)
