"""Some seconds of the fuzzer (support/http_fuzz.py); `make fuzz` is ten minutes of it. Every loop's run has other seeds."""

import pytest
from support.http_fuzz import PAYLOADS, Finding, _compare, _statuses, check_head, fuzz, seeds
from support.once import once
from support.scale import SCALE, SEED

from fibers.http.head import parse_head

pytestmark = once

SECONDS = max(5.0, 600 * SCALE) if SCALE >= 1 else 5.0


def test_broken_requests_are_refused_and_leave_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    tried, accepted = fuzz(SECONDS, SEED)
    assert tried > 100
    assert 0 < accepted < tried
    with capsys.disabled():
        print(f"\n{tried} broken requests, {accepted} heads accepted, by h11 too; --seed {SEED}")


def test_payloads_known_to_break_others() -> None:
    assert [check_head(payload) for payload in PAYLOADS] == [
        False, False, False, False, True, False, False, False, False, True, True, True,
    ]  # fmt: skip  # the fifth one is wrong in its body
    assert len(seeds()) > 140


def test_the_fuzzer_sees_what_it_looks_for() -> None:
    head = parse_head(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
    with pytest.raises(Finding, match="understood as"):
        _compare(head, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\n")
    with pytest.raises(Finding, match="and h11 says"):
        _compare(head, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\n")
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"
    assert _statuses(good * 2, b"") == [200, 200]
    assert _statuses(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n" + good, b"") == [
        200,
        200,
    ]
    with pytest.raises(Finding, match="no HTTP from byte 40"):
        _statuses(good + b"x", b"")
