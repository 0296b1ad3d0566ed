"""A client of Redis by hand: RESP 2 over a Stream."""

from typing import Any

from support.dialing import dial

from fibers.io import Stream


class RedisError(Exception):
    """What the server says when it says no."""


class Redis:
    """One connection. `command` is for one fiber at a time; `send` and `receive` may be two fibers."""

    def __init__(self, address: Any, timeout: float | None = None) -> None:
        self.stream = Stream(dial(address, timeout))

    def command(self, *words: str | bytes | int) -> Any:
        self.send(words)
        return self.receive()

    def send(self, *commands: tuple[str | bytes | int, ...]) -> None:
        """All commands in one write: a pipeline."""
        self.stream.write_all(b"".join(map(encode, commands)))

    def receive(self) -> Any:
        """One reply: bytes, str (a status), int, None or a list of them. Raises RedisError if it is an error."""
        line = self.stream.read_until(b"\r\n")[:-2]
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"-":
            raise RedisError(rest.decode())
        size = int(rest)
        if size < 0:
            return None
        if kind == b"$":
            return self.stream.read_exactly(size + 2)[:-2]
        assert kind == b"*", line
        return [self.receive() for _ in range(size)]

    def __enter__(self) -> "Redis":
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()


def encode(words: tuple[str | bytes | int, ...]) -> bytes:
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
