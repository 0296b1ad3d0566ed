"""The status page: what the connections of this process are doing, now.

The numbers are the sizes of the books (census.py) of all its loops, not samples of them; they are right at the moment at
which they are read. There are three forms: HTML for people; `?auto`, lines of `Key: value` as Apache's mod_status has them,
for scripts; and `?prometheus`, the text that Prometheus reads.

The page tells much about a server's customers and its weak spots. So it is shown to the networks that were named, and to
nobody else: for others the path is the application's.
"""

import os
import platform
import resource
from collections.abc import Callable
from html import escape
from time import gmtime, monotonic, strftime, time
from typing import Final

from .census import CLOSING, KEEP_ALIVE, NAMES, WRITING
from .exchange import Exchange
from .networks import Networks
from .service import Board

#: Who sees it, if nothing is said: this machine.
LOCAL: Final = ("127.0.0.0/8", "::1", "unix")

_EXPLAINED: Final = (
    "has said nothing yet", "is shaking hands", "has sent a part of a request's head", "its request waits for a handler",
    "a handler is at work", "a handler waits for the request's body", "has not taken all of its response",
    "is idle between two requests", "has had its last response", "speaks another protocol",
)  # fmt: skip


class Figures:
    """The numbers of one moment."""

    def __init__(self, board: Board, began: float) -> None:
        hubs = board.hubs()
        self.loops = [[hub.census.count(state) for state in range(len(NAMES))] for hub in hubs]
        self.states = [sum(column) for column in zip(*self.loops, strict=True)] or [0] * len(NAMES)
        self.accepted = sum(hub.census.accepted_total for hub in hubs)
        self.requests = sum(hub.census.requests_total for hub in hubs)
        self.sent = sum(hub.census.bytes_total for hub in hubs)
        self.running = sum(hub.running for hub in hubs)
        self.queued = sum(len(hub.queued) for hub in hubs)
        self.handlers = sum(hub.settings.max_handlers for hub in hubs)
        self.stopping = any(hub.stopping for hub in hubs)
        logs = {hub.log for hub in hubs if hub.log is not None}
        self.dropped = sum(log.dropped for log in logs)
        self.uptime = monotonic() - began
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.cpu = usage.ru_utime + usage.ru_stime

    @property
    def open(self) -> int:
        """Connections that there are."""
        return sum(self.states)


class StatusPage:
    """Answers at `path` who may see it; everything else goes to `handler`."""

    __slots__ = ("_began", "_board", "_handler", "_path", "_seers")

    def __init__(self, handler: Callable[[Exchange], None], board: Board, path: str, seers: Networks) -> None:
        if not path.startswith("/"):
            raise ValueError(f"the path of the status page begins with a slash, which {path!r} does not")
        self._handler = handler
        self._board = board
        self._path = path
        self._seers = seers
        self._began = monotonic()

    def __call__(self, exchange: Exchange) -> None:
        head = exchange.head
        if head.path != self._path or exchange.origin.client not in self._seers:
            self._handler(exchange)
            return
        if head.method not in ("GET", "HEAD"):
            exchange.respond("405 Method Not Allowed", [("Allow", "GET, HEAD")], b"")
            return
        figures = Figures(self._board, self._began)
        if head.query == "auto":
            kind, text = "text/plain; charset=utf-8", as_auto(figures)
        elif head.query == "prometheus":
            kind, text = "text/plain; version=0.0.4; charset=utf-8", as_prometheus(figures)
        else:
            kind, text = "text/html; charset=utf-8", as_html(figures, self._path)
        exchange.respond("200 OK", [("Content-Type", kind), ("Cache-Control", "no-store")], text.encode())


def as_auto(figures: Figures) -> str:
    """Lines of `Key: value`; the keys that Apache has, have Apache's names."""
    states, uptime = figures.states, figures.uptime
    lines = {
        "ServerVersion": "fibers",
        "CurrentTime": strftime("%A, %d-%b-%Y %H:%M:%S GMT", gmtime(time())),
        "ServerUptimeSeconds": int(uptime),
        "Processes": 1,
        "Loops": len(figures.loops),
        "Stopping": int(figures.stopping),
        "Total Accesses": figures.requests,
        "Total kBytes": figures.sent // 1024,
        "Total Connections": figures.accepted,
        "CPUSeconds": f"{figures.cpu:.3f}",
        "ReqPerSec": f"{figures.requests / uptime if uptime else 0:.3f}",
        "BusyWorkers": figures.running,
        "IdleWorkers": figures.handlers - figures.running,
        "QueuedRequests": figures.queued,
        "ConnsTotal": figures.open,
        "ConnsAsyncWriting": states[WRITING],
        "ConnsAsyncKeepAlive": states[KEEP_ALIVE],
        "ConnsAsyncClosing": states[CLOSING],
        **{"Conns" + "".join(map(str.title, name.split("-"))): states[at] for at, name in enumerate(NAMES)},
        "AccessLogDropped": figures.dropped,
    }
    return "".join(f"{key}: {value}\n" for key, value in lines.items())


def as_prometheus(figures: Figures) -> str:
    """The text format of Prometheus, 0.0.4."""
    text = ["# HELP fibers_http_connections Open connections, by what they are doing."]
    text.append("# TYPE fibers_http_connections gauge")
    for loop, counts in enumerate(figures.loops):
        for name, count in zip(NAMES, counts, strict=True):
            text.append(f'fibers_http_connections{{loop="{loop}",state="{name}"}} {count}')
    for name, kind, explained, value in (
        ("connections_accepted_total", "counter", "Connections since the start.", figures.accepted),
        ("requests_total", "counter", "Requests since the start.", figures.requests),
        ("response_body_bytes_total", "counter", "Bytes of the bodies of responses.", figures.sent),
        ("handlers_running", "gauge", "Handlers at work.", figures.running),
        ("handlers_limit", "gauge", "Handlers that may be at work at once.", figures.handlers),
        ("requests_queued", "gauge", "Requests that wait for a handler.", figures.queued),
        ("access_log_dropped_total", "counter", "Requests that are missing in the access log.", figures.dropped),
        ("uptime_seconds", "gauge", "Seconds since the start.", round(figures.uptime, 3)),
        ("cpu_seconds_total", "counter", "Processor time of the process.", round(figures.cpu, 3)),
    ):
        text += [f"# HELP fibers_http_{name} {explained}", f"# TYPE fibers_http_{name} {kind}"]
        text.append(f"fibers_http_{name} {value}")
    return "\n".join(text) + "\n"


_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --bar: #3b82f6; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 } p { margin: .2rem 0 1.5rem; opacity: .75 }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 0 0 2rem }
dl div { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem }
dt { font-size: .8rem; opacity: .75 } dd { margin: 0; font-size: 1.3rem; font-variant-numeric: tabular-nums }
table { border-collapse: collapse; width: 100% }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums }
th:first-child, td:first-child, td:last-child, th:last-child { text-align: left }
thead th { font-size: .8rem; font-weight: 600 } tfoot td, tfoot th { font-weight: 600; border-bottom: 0 }
.bar { display: block; height: .5rem; background: var(--bar); border-radius: .25rem; min-width: 0 }
.what { font-size: .85rem; opacity: .75 } .table { overflow-x: auto }
"""


def as_html(figures: Figures, path: str) -> str:
    """A page without scripts, readable by a person and on a telephone."""
    loops = len(figures.loops)
    facts = [
        ("open connections", figures.open),
        ("requests", figures.requests),
        ("requests a second", f"{figures.requests / figures.uptime if figures.uptime else 0:.1f}"),
        ("handlers at work", f"{figures.running} of {figures.handlers}"),
        ("requests that wait", figures.queued),
        ("sent", _size(figures.sent)),
        ("processor", f"{figures.cpu:.1f} s"),
        ("up", _duration(figures.uptime)),
    ]
    boxes = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts)
    most = max(figures.states, default=0) or 1
    rows = ""
    for at, name in enumerate(NAMES):
        cells = "".join(f"<td>{counts[at]}</td>" for counts in figures.loops) if loops > 1 else ""
        share = 100 * figures.states[at] / most
        rows += (
            f'<tr id="{name}"><td>{name}<br><span class="what">{_EXPLAINED[at]}</span></td>{cells}'
            f'<td class="count">{figures.states[at]}</td>'
            f'<td style="width:35%"><span class="bar" style="width:{share:.0f}%"></span></td></tr>'
        )
    heads = "".join(f"<th>loop {number}</th>" for number in range(loops)) if loops > 1 else ""
    sums = "".join(f"<td>{sum(counts)}</td>" for counts in figures.loops) if loops > 1 else ""
    told = f"process {os.getpid()}, {loops} loop{'s' * (loops != 1)}, Python {platform.python_version()}"
    stopping = "; it is stopping" if figures.stopping else ""
    where = escape(path)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta http-equiv="refresh" content="5">'
        f"<title>fibers: server status</title><style>{_STYLE}</style></head><body>"
        f"<h1>Server status</h1><p>{escape(told)}{stopping}. For programs: "
        f'<a href="{where}?auto">?auto</a>, <a href="{where}?prometheus">?prometheus</a></p>'
        f'<dl>{boxes}</dl><div class="table"><table><thead><tr><th>connections</th>{heads}<th>now</th><th></th></tr></thead>'
        f'<tbody>{rows}</tbody><tfoot><tr><th>all</th>{sums}<td id="open">{figures.open}</td><td></td></tr></tfoot>'
        "</table></div></body></html>\n"
    )


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return " ".join(f"{count:.0f} {unit}" for count, unit in parts[:2])
