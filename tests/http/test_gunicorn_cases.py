"""Gunicorn's request cases (gunicorn_cases/README.md), all of them: whole, by line, by byte and in random pieces.

A valid case is to be understood as gunicorn does: method, target, version, fields, body, trailers. An invalid one is to be
refused with an error, or dropped, and nothing of it may reach a handler. DEVIATIONS lists where this server is of another
opinion, with the reason; a deviation that is none any more fails, too.
"""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.http_serving import site
from support.scale import SEED

import fibers
from fibers.http import Limits
from fibers.http.exchange import Exchange

CASES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "gunicorn_cases" / "cases.json").read_text())

#: How gunicorn's settings are said here. A case with another one is among the deviations, or does not need it.
LIMITS = {"limit_request_line": "line", "limit_request_field_size": "field", "limit_request_fields": "fields"}

_HOST = "HTTP/1.1 without Host is refused (RFC 9112, 3.2); with one it is understood as there: see test_with_a_host"
_FOLD = "folded lines are refused, and no setting allows them (RFC 9112, 5.2)"
_CODING = "a coding beside chunked is not known here: 501, instead of a body that nobody decodes (RFC 9112, 6.1)"
_SIZE = "the same limit, without the line end that is counted there"
HOSTLESS = [
    "valid/004", "valid/006", "valid/007", "valid/010", "valid/011", "valid/012", "valid/013", "valid/014", "valid/018",
    "valid/021", "valid/022", "valid/023", "valid/031",
    "valid/031compat2", "valid/100", "valid/pp_02",
]  # fmt: skip
DEVIATIONS: dict[str, str] = {
    **dict.fromkeys(HOSTLESS, _HOST),
    "valid/005": "a target with a fragment is refused: it is none (RFC 9112, 3.2)",
    **dict.fromkeys(
        ("valid/025", "valid/025_line", "valid/029", "valid/030"), f"{_CODING}. And {_HOST.partition(' is')[0]}"
    ),
    "valid/031compat": "methods are not made upper case (RFC 9110, 9.1)",
    "valid/028": "space before a colon is refused, and no setting allows it (RFC 9112, 5.1)",
    "valid/040_compat": "a field whose name has an underscore is dropped, and no setting passes it on",
    "valid/099": "the body is shorter than its Content-Length, which there nobody notices",
    "valid/compat_obs_fold": _FOLD,
    "valid/compat_obs_fold_huge": _FOLD,
    "valid/pp_03": "who is trusted to send a PROXY header must send one (the specification, 2)",
    "valid/rfc9112_smuggle_gzip_chunked_01": _CODING,
    "valid/rfc9112_smuggle_te_identity_chunked_01": _CODING,
    "valid/rfc9112_target_absolute_userinfo_01": "a URL with a user in it is refused (RFC 9110, 4.2.4)",
    "invalid/008": "the whole head may be larger here (64 KiB), and has a limit of its own",
    "invalid/012": _SIZE,
    "invalid/limit_header_default_01": _SIZE,
    "invalid/040": "fields whose names have an underscore are dropped, not refused",
}


class Handler:
    """Keeps what reaches it."""

    takes_exchanges = True

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def __call__(self, exchange: Exchange) -> None:
        head = exchange.head
        body = exchange.body.read()
        self.seen.append(
            {
                "method": head.method,
                "uri": head.target,
                "version": list(head.version),
                "headers": [[name.upper(), value] for name, value in head.fields],
                "body": body.decode("latin-1"),
                "trailers": [[name.upper(), value] for name, value in exchange.body.trailers],
            }
        )
        exchange.respond("200 OK")


def options(settings: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    limits: dict[str, Any] = {"line": 4094, "field": 8190}  # as there by default
    limits |= {LIMITS[name]: value for name, value in settings.items() if name in LIMITS and value}
    given["limits"] = Limits(**limits)
    if settings.get("proxy_protocol"):
        given["proxy_protocol_from"] = ["127.0.0.1"]
    return given


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def by_line(data: bytes) -> Iterator[bytes]:
    yield from data.splitlines(keepends=True)


def by_byte(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        yield data[at : at + 1]


def at_random(data: bytes) -> Iterator[bytes]:
    chance, at = random.Random(SEED), 0
    while at < len(data):
        size = chance.randint(1, max(1, len(data) // 10))
        yield data[at : at + size]
        at += size


def run(case: dict[str, Any], split: Any) -> tuple[list[dict[str, Any]], bytes]:
    """What reached the handler, and what came back."""
    handler = Handler()
    with site(handler, body_timeout=2.0, head_timeout=2.0, **options(case.get("settings", {}))) as served:
        with served.connect() as client:
            try:
                for number, piece in enumerate(split(case["data"].encode("latin-1"))):
                    client.write_all(piece)
                    if number < 200:
                        fibers.sleep(0)
                client.write_eof()
                answer = client.read_all()
            except ConnectionError:
                answer = b""  # it was refused while it was being sent
    return handler.seen, answer


def judge(name: str, split: Any, case: dict[str, Any] | None = None) -> str:
    """What is wrong; "" if nothing is."""
    case = CASES[name] if case is None else case
    seen, answer = run(case, split)
    statuses = [int(each) for each in re.findall(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [A-Z]", answer)]
    if name.startswith("invalid/"):
        refused = not statuses or statuses[-1] >= 400
        return "" if refused and len(seen) < max(1, len(statuses)) else f"accepted: {statuses} {seen}"
    wanted = [{"trailers": [], **each} for each in case["requests"]]
    for each in wanted:
        each.setdefault("body", "")
    if any(status >= 400 for status in statuses):
        return f"refused: {answer[-200:]!r}"
    return "" if seen == wanted else f"understood as {seen}, not {wanted}"


@pytest.mark.parametrize("split", [whole, by_line, by_byte, at_random], ids=lambda split: split.__name__)
def test_all_cases(split: Any, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = [name for name in CASES if split is not by_byte or len(CASES[name]["data"]) < 2000]
    found = {name: problem for name in chosen if (problem := judge(name, split))}
    new = {name: problem for name, problem in found.items() if name not in DEVIATIONS}
    with capsys.disabled():
        print(
            f"\n{len(chosen)} cases of gunicorn {split.__name__}: "
            f"{len(chosen) - len(found)} as there, {len(found)} otherwise"
        )
    assert new == {}, "\n".join(f"{name}: {problem}" for name, problem in new.items())
    gone = [name for name in DEVIATIONS if name in chosen and name not in found]
    assert gone == [], f"no deviations any more: {gone}"


@pytest.mark.parametrize("name", HOSTLESS)
def test_with_a_host(name: str) -> None:
    case = {**CASES[name], "data": re.sub("HTTP/1.1\r\n", "HTTP/1.1\r\nHost: h\r\n", CASES[name]["data"])}
    case["requests"] = [
        {**each, "headers": [["HOST", "h"], *each["headers"]] if each["version"] == [1, 1] else each["headers"]}
        for each in CASES[name]["requests"]
    ]
    assert judge(name, whole, case) == ""
