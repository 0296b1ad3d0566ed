"""A client of PostgreSQL by hand: the wire protocol, version 3, over a Stream.

Of it: startup, trust and SCRAM-SHA-256, TLS by an upgrade in place, simple queries, COPY out of the server, notifications
and the cancel request. Values are text.
"""

import base64
import hashlib
import hmac
import os
import ssl
import struct
from typing import Any, Final

from support.dialing import dial

from fibers.io import Stream

_VERSION: Final = 196_608
_SSL_REQUEST: Final = 80_877_103
_CANCEL_REQUEST: Final = 80_877_102

Row = tuple[str | None, ...]


class PostgresError(Exception):
    """What the server says when it says no. `code` is the SQLSTATE."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__(fields.get("M", "no message"))
        self.code = fields.get("C", "")


class Postgres:
    """One session, for one fiber at a time; `cancel()` is for others."""

    def __init__(
        self,
        address: Any,
        user: str = "fibers",
        password: str = "",
        context: ssl.SSLContext | None = None,
        timeout: float | None = None,
    ) -> None:
        self.address = address
        self.notifications: list[tuple[str, str]] = []  # channel, payload
        self.parameters: dict[str, str] = {}
        self.secret = b""
        transport: Any = dial(address, timeout)
        try:
            if context is not None:
                transport = _secure(transport, context)
            self.stream = Stream(transport)
            words = f"user\0{user}\0database\0postgres\0\0".encode()
            self.stream.write_all(struct.pack("!II", len(words) + 8, _VERSION) + words)
            self._authenticate(password)
            self.results()
        except BaseException:
            transport.close()
            raise

    def query(self, sql: str) -> list[Row]:
        """The rows of all results. Raises PostgresError; the session can be used afterwards."""
        self.send(b"Q", sql.encode() + b"\0")
        return self.results()

    def wait_for_notification(self, timeout: float | None = None) -> tuple[str, str]:
        """The next one. A timeout leaves the session as it was: half a message that has come stays in the stream."""
        while not self.notifications:
            header = self.stream.peek(5, timeout=timeout)
            if len(header) < 5:
                raise EOFError("the server has gone")
            size = 1 + int.from_bytes(header[1:])
            self._note(header[:1], self.stream.read_exactly(size, timeout=timeout)[5:])
        return self.notifications.pop(0)

    def cancel(self) -> None:
        """Ask the server, over another connection, to cancel the query that runs in this session."""
        with Stream(dial(self.address)) as stream:
            stream.write_all(struct.pack("!II", 16, _CANCEL_REQUEST) + self.secret)
            assert stream.read_all() == b""

    def close(self) -> None:
        self.stream.close()

    def __enter__(self) -> "Postgres":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- messages

    def send(self, kind: bytes, body: bytes) -> None:
        self.stream.write_all(kind + struct.pack("!I", len(body) + 4) + body)

    def _receive(self) -> tuple[bytes, bytes]:
        header = self.stream.read_exactly(5)
        return header[:1], self.stream.read_exactly(int.from_bytes(header[1:]) - 4)

    def _note(self, kind: bytes, body: bytes) -> None:
        """A message that may come at any time."""
        if kind == b"A":
            channel, payload = body[4:].split(b"\0")[:2]
            self.notifications.append((channel.decode(), payload.decode()))
        elif kind == b"S":
            name, value = body.split(b"\0")[:2]
            self.parameters[name.decode()] = value.decode()
        elif kind == b"K":
            self.secret = body
        elif kind == b"E":
            raise PostgresError(_fields(body))

    def results(self) -> list[Row]:
        """Everything up to ReadyForQuery."""
        rows: list[Row] = []
        failed: PostgresError | None = None
        while True:
            kind, body = self._receive()
            if kind == b"Z":
                break
            if kind == b"D":
                rows.append(_row(body))
            elif kind == b"d":
                rows.append((body.decode().rstrip("\n"),))
            elif kind == b"E":
                failed = PostgresError(_fields(body))
                if failed.code.startswith(("57P", "28")):
                    break  # the session ends here
            else:
                self._note(kind, body)
        if failed is not None:
            raise failed
        return rows

    def _authenticate(self, password: str) -> None:
        while True:
            kind, body = self._receive()
            if kind != b"R":
                self._note(kind, body)
                continue
            step, data = int.from_bytes(body[:4]), body[4:]
            if step == 0:
                return
            if step == 10:
                assert b"SCRAM-SHA-256" in data.split(b"\0"), data
                scram = _Scram(password)
                first = scram.first()
                self.send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first)
            elif step == 11:
                self.send(b"p", scram.final(data))
            else:
                assert step == 12, step
                scram.verify(data)


class _Scram:
    """RFC 5802 and 7677, the client's side, without channel binding. The password must be ASCII."""

    def __init__(self, password: str) -> None:
        self.password = password.encode("ascii")
        self.nonce = base64.b64encode(os.urandom(18))
        self.expected = b""

    def first(self) -> bytes:
        return b"n,," + self._bare()

    def _bare(self) -> bytes:
        return b"n=,r=" + self.nonce

    def final(self, challenge: bytes) -> bytes:
        fields = dict(part.split(b"=", 1) for part in challenge.split(b","))
        assert fields[b"r"].startswith(self.nonce)
        salted = hashlib.pbkdf2_hmac("sha256", self.password, base64.b64decode(fields[b"s"]), int(fields[b"i"]))
        key = _mac(salted, b"Client Key")
        words = b"c=biws,r=" + fields[b"r"]
        told = b",".join((self._bare(), challenge, words))
        signature = _mac(hashlib.sha256(key).digest(), told)
        self.expected = b"v=" + base64.b64encode(_mac(_mac(salted, b"Server Key"), told))
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        return words + b",p=" + base64.b64encode(proof)

    def verify(self, final: bytes) -> None:
        assert final == self.expected, "the server does not know the password"


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _secure(transport: Any, context: ssl.SSLContext) -> Any:
    """Upgrade the connection in place. The server's answer is read alone: behind it TLS begins."""
    stream = Stream(transport)
    stream.write_all(struct.pack("!II", 8, _SSL_REQUEST))
    answer = stream.read_exactly(1)
    plain, rest = stream.detach()
    assert (answer, rest) == (b"S", b"")
    return context.wrap_socket(plain, server_hostname="localhost")  # type: ignore[arg-type]


def _fields(body: bytes) -> dict[str, str]:
    return {part[:1].decode(): part[1:].decode() for part in body.split(b"\0") if part}


def _row(body: bytes) -> Row:
    values: list[str | None] = []
    at = 2
    for _ in range(int.from_bytes(body[:2])):
        size = int.from_bytes(body[at : at + 4], signed=True)
        at += 4
        values.append(None if size < 0 else body[at : at + size].decode())
        at += max(size, 0)
    return tuple(values)
