"""What can be wrong with a request, as the client is told it."""

from collections.abc import Sequence


class RequestError(Exception):
    """A request that is refused. `status` is the HTTP status; the text says why, for the client and for the log.

    `fields` go with the answer. After one nothing more is read from the connection as HTTP: where the next request would
    begin is not known.
    """

    def __init__(self, status: int, reason: str, fields: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.fields = fields

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


class ClientGoneError(ConnectionError):
    """The client closed the connection in the middle of its request. There is nobody to answer."""
