"""A fuzzer over the path of a request: `python -m support.http_fuzz --seconds 600`, or `make fuzz`.

The seeds are gunicorn's request cases and payloads that have broken other servers. They are cut, spliced, repeated, and
have bytes and words put into them. Each result goes two ways:

* Its head through the parser. It may be refused with RequestError, and with nothing else. If it is accepted, h11 must accept
  it too, and agree on the method, the target and how long the body is: an oracle that shares no line with ours.
* All of it over a connection, in random pieces. What comes back must be HTTP from its first byte to its last, there is at
  most one answer for each request that reached a handler and one refusal, nothing comes after a refusal, no error is
  logged, and the server ends as empty as it began.

A finding is printed as bytes that can be put into a test.
"""

import argparse
import errno
import json
import logging
import random
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h11

import fibers
from fibers.http.errors import RequestError
from fibers.http.exchange import Exchange
from fibers.http.head import Head, parse_head

from .http_serving import Site, site

_CASES = Path(__file__).parents[1] / "http" / "gunicorn_cases" / "cases.json"
PAYLOADS = [
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1_0\r\n\r\n0123456789",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x10\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0_2e\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\xa0: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\rHost: h\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nabc",
]
WORDS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"\r\n\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n",
    b"HTTP/1.1", b"HTTP/1.0", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: h\r\n",
    b"Connection: close\r\n", b"chunked", b"GET ", b"-1", b"18446744073709551616", b"+5", b"\xff", b"\x80",
    b"%00", b"..", b"#", b"?", b"*", b"http://", b"[::1]", b"_", b"Expect: 100-continue\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
]  # fmt: skip
_LONGEST = 20_000
_ANSWER = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [ -~]*\r\n((?:[A-Za-z-]+: [^\r\n]*\r\n)*)\r\n")


_CHUNK = re.compile(rb"([0-9a-f]+)\r\n")


class Finding(AssertionError):
    """Something that must not happen, and the bytes that made it happen."""


def seeds() -> list[bytes]:
    """What is mutated."""
    cases = json.loads(_CASES.read_text())
    return [case["data"].encode("latin-1") for case in cases.values()] + PAYLOADS


def mutate(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Something near to it."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at, end = sorted((chance.randint(0, len(made)), chance.randint(0, len(made))))
        end = min(end, at + 200)
        how = chance.randrange(8)
        if how == 0:
            made[at:end] = b""
        elif how == 1:
            made[at:at] = made[at:end]
        elif how == 2:
            other = chance.choice(others)
            made[at:] = other[chance.randint(0, len(other)) :]
        elif how == 3 and made:
            made[min(at, len(made) - 1)] = chance.randrange(256)
        elif how == 4:
            made[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 8)))
        elif how == 5:
            made[at:at] = chance.choice(WORDS) * chance.choice((1, 1, 1, 2, 200))
        elif how == 6:
            made[at:end] = chance.choice(WORDS)
        else:
            made = made[:at] if chance.random() < 0.3 else made + chance.choice(others)
    return bytes(made[:_LONGEST])


def check_head(data: bytes) -> bool:
    """The first way. True if the head was accepted."""
    end = data.find(b"\r\n\r\n")
    if end < 0 or data.startswith(b"\r\n"):
        return False
    raw = data[: end + 4]
    try:
        head = parse_head(raw)
    except RequestError:
        return False
    except Exception as error:
        raise Finding(f"{error!r} of parse_head({raw!r})") from error
    _compare(head, raw)
    return True


def _compare(head: Head, raw: bytes) -> None:
    oracle = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    oracle.receive_data(raw)
    try:
        event = oracle.next_event()
    except h11.RemoteProtocolError as error:
        raise Finding(f"accepted, and h11 says {error}: {raw!r}") from error
    if not isinstance(event, h11.Request):
        raise Finding(f"accepted, and h11 makes {event!r} of it: {raw!r}")
    fields = dict(event.headers)
    chunked = b"transfer-encoding" in fields
    length = 0 if chunked else int(fields.get(b"content-length", b"0"))
    theirs = (event.method.decode(), event.target.decode("latin-1"), chunked, length)
    ours = (head.method, head.target, head.chunked, head.length)
    if ours != theirs:
        raise Finding(f"understood as {ours}, and by h11 as {theirs}: {raw!r}")


class Handler:
    """Reads, answers, and counts."""

    takes_exchanges = True

    def __init__(self) -> None:
        self.called = 0

    def __call__(self, exchange: Exchange) -> None:
        self.called += 1
        kind = self.called % 4
        if kind == 0:
            exchange.respond("200 OK", [], b"unread")
        elif kind == 1:
            exchange.respond("200 OK", [], exchange.body.read()[:100])
        elif kind == 2:
            exchange.begin("200 OK")
            for line in exchange.body:
                exchange.write(line[:100])
        else:
            exchange.body.readline(10)
            exchange.respond("200 OK", [], b"x" * 10)


def check_connection(served: Site, handler: Handler, data: bytes, pieces: Iterator[bytes]) -> None:
    """The second way."""
    before = handler.called
    answer = b""
    with served.connect() as client:
        try:
            for piece in pieces:
                client.write_all(piece)
                fibers.sleep(0)
            client.write_eof()
            answer = client.read_all(limit=1 << 22)
        except TimeoutError as error:
            raise Finding(f"no answer and no end: {data!r}") from error
        except OSError as error:
            if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
                raise
            answer = b""  # closed while we were sending: what came is lost with it
    calls = handler.called - before
    final = _statuses(answer, data)
    if len(final) > calls + 1:
        raise Finding(f"{len(final)} answers to {calls} requests: {data!r}: {answer!r}")
    if any(status >= 400 for status in final[:-1]):
        raise Finding(f"something comes after a refusal: {data!r}: {answer!r}")
    if any(status == 500 for status in final):
        raise Finding(f"a 500: {data!r}")


def _statuses(answer: bytes, data: bytes) -> list[int]:
    """Of all final answers. Everything must belong to one, but the last may be cut off."""
    at, statuses = 0, []
    while at < len(answer):
        found = _ANSWER.match(answer, at)
        if found is None:
            raise Finding(f"no HTTP from byte {at} on: {answer!r}, for {data!r}")
        at = found.end()
        if found[1] == b"100":
            continue
        statuses.append(int(found[1]))
        fields = found[2].lower()
        length = re.search(rb"content-length: ([0-9]+)\r\n", fields)
        if b"transfer-encoding: chunked" in fields:
            if not _ANSWER.match(answer, at):  # else it is one to HEAD
                at = _behind_chunks(answer, at)
        elif length is not None and not _ANSWER.match(answer, at):
            at += int(length[1])
        elif length is None:
            at = len(answer)
    return statuses


def _behind_chunks(answer: bytes, at: int) -> int:
    while (line := _CHUNK.match(answer, at)) is not None:
        size = int(line[1], 16)
        at = line.end() + size + 2
        if not size:
            return at
    return len(answer)


class _Errors(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def fuzz(seconds: float, seed: int) -> tuple[int, int]:
    """For so long; how many were tried, and how many of their heads were accepted. Raises Finding."""
    chance, corpus = random.Random(seed), seeds()
    pool = list(corpus)
    handler, errors = Handler(), _Errors()
    logger = logging.getLogger("fibers.http")
    logger.addHandler(errors)
    tried = accepted = 0
    end = time.monotonic() + seconds
    try:
        with site(handler, body_timeout=5.0, head_timeout=5.0, linger=0.2) as served:
            while time.monotonic() < end:
                data = mutate(chance.choice(pool), corpus, chance)
                good = check_head(data)
                tried, accepted = tried + 1, accepted + good
                if good and len(pool) < 5000 and chance.random() < 0.05:
                    pool.append(data)  # what gets through leads further
                if tried % 4:
                    continue
                count = chance.randint(1, 4)
                cuts = sorted(chance.randint(0, len(data)) for _ in range(count))
                pieces = (data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True))
                check_connection(served, handler, data, pieces)
                if errors.lines:
                    raise Finding(f"logged for {data!r}: {errors.lines}")
            hub = served.hub
            while hub.census.open():
                fibers.sleep(0.001)
            if hub.running or hub.queued:
                raise Finding(
                    f"{hub.running} handlers run, {len(hub.queued)} requests wait, and there is no connection"
                )
    finally:
        logger.removeHandler(errors)
    return tried, accepted


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the path of a request.")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    print(f"fuzzing for {options.seconds:g} seconds; to repeat: --seed {options.seed}", flush=True)
    try:
        tried, accepted = fuzz(options.seconds, options.seed)
    except Finding as finding:
        print(f"FOUND: {finding}")
        return 1
    print(f"{tried} tried, {accepted} heads accepted, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
