"""The status page: what the connections of a server are doing, now, in all of its processes.

The numbers are the sizes of the books (figures.py), not samples of them. There are three forms: HTML for people; `?auto`,
lines of `Key: value` as Apache's mod_status has them, for scripts; and `?prometheus`, the text that Prometheus reads. All
three show the sums; and where there are several processes, each of them. What processes have counted that have ended is in
the sums, so counters never go back.

The page tells much about a server's customers and its weak spots. So it is shown to the networks that were named, and to
nobody else: for others the path is the application's.
"""

import platform
from collections.abc import Callable, Iterable
from html import escape
from time import gmtime, strftime, time
from typing import Final

from .census import CLOSING, KEEP_ALIVE, NAMES, WRITING
from .exchange import Exchange
from .figures import Counts, Figures, Process, Tell
from .networks import Networks

#: Who sees it, if nothing is said: this machine.
LOCAL: Final = ("127.0.0.0/8", "::1", "unix")

_EXPLAINED: Final = (
    "has said nothing yet", "is shaking hands", "has sent a part of a request's head", "its request waits for a handler",
    "a handler is at work", "a handler waits for the request's body", "has not taken all of its response",
    "is idle between two requests", "has had its last response", "speaks another protocol",
)  # fmt: skip


class StatusPage:
    """Answers at `path` who may see it; everything else goes to `handler`."""

    __slots__ = ("_handler", "_handlers", "_path", "_seers", "_tell")

    def __init__(
        self, handler: Callable[[Exchange], None], tell: Tell, handlers: int, path: str, seers: Networks
    ) -> None:
        """`tell` gives the figures; `handlers` may be at work in each loop."""
        if not path.startswith("/"):
            raise ValueError(f"the path of the status page begins with a slash, which {path!r} does not")
        self._handler = handler
        self._tell = tell
        self._handlers = handlers
        self._path = path
        self._seers = seers

    def __call__(self, exchange: Exchange) -> None:
        head = exchange.head
        if head.path != self._path or exchange.origin.client not in self._seers:
            self._handler(exchange)
            return
        if head.method not in ("GET", "HEAD"):
            exchange.respond("405 Method Not Allowed", [("Allow", "GET, HEAD")], b"")
            return
        figures = self._tell()
        handlers = self._handlers * figures.loops
        if head.query == "auto":
            kind, text = "text/plain; charset=utf-8", as_auto(figures, handlers)
        elif head.query == "prometheus":
            kind, text = "text/plain; version=0.0.4; charset=utf-8", as_prometheus(figures, handlers)
        else:
            kind, text = "text/html; charset=utf-8", as_html(figures, handlers, self._path)
        exchange.respond("200 OK", [("Content-Type", kind), ("Cache-Control", "no-store")], text.encode())


def as_auto(figures: Figures, handlers: int) -> str:
    """Lines of `Key: value`; the keys that Apache has, have Apache's names."""
    all, uptime = figures.all, figures.uptime
    lines = {
        "ServerVersion": "fibers",
        "CurrentTime": strftime("%A, %d-%b-%Y %H:%M:%S GMT", gmtime(time())),
        "ServerUptimeSeconds": int(uptime),
        "Processes": len(figures.processes),
        "Stopping": sum(process.state == "leaving" for process in figures.processes),
        "ProcessesEnded": figures.ended,
        "Loops": figures.loops,
        "Total Accesses": all.requests,
        "Total kBytes": all.sent // 1024,
        "Total Connections": all.accepted,
        "CPUSeconds": f"{figures.cpu:.3f}",
        "ReqPerSec": f"{all.requests / uptime if uptime else 0:.3f}",
        "BusyWorkers": all.running,
        "IdleWorkers": handlers - all.running,
        "QueuedRequests": all.queued,
        "ConnsTotal": all.open,
        "ConnsAsyncWriting": all.states[WRITING],
        "ConnsAsyncKeepAlive": all.states[KEEP_ALIVE],
        "ConnsAsyncClosing": all.states[CLOSING],
        **{"Conns" + "".join(map(str.title, name.split("-"))): all.states[at] for at, name in enumerate(NAMES)},
        "AccessLogDropped": all.dropped,
    }
    for process in figures.processes if len(figures.processes) > 1 else ():
        lines |= {
            f"Process {process.pid} {key}": value
            for key, value in (
                ("State", process.state),
                ("UptimeSeconds", int(process.age)),
                ("CPUSeconds", "unknown" if process.cpu is None else f"{process.cpu:.3f}"),
                ("Accesses", process.all.requests),
                ("Connections", process.all.accepted),
                ("BusyWorkers", process.all.running),
                ("QueuedRequests", process.all.queued),
                ("ConnsTotal", process.all.open),
            )
        }
    return "".join(f"{key}: {value}\n" for key, value in lines.items())


def as_prometheus(figures: Figures, handlers: int) -> str:
    """The text format of Prometheus, 0.0.4. The label `pid` is there where there are several processes."""
    all = figures.all
    many = len(figures.processes) > 1
    text = ["# HELP fibers_http_connections Open connections, by what they are doing."]
    text.append("# TYPE fibers_http_connections gauge")
    for process in figures.processes:
        label = f'pid="{process.pid}",' if many else ""
        for loop, counts in enumerate(process.loops):
            for name, count in zip(NAMES, counts.states, strict=True):
                text.append(f'fibers_http_connections{{{label}loop="{loop}",state="{name}"}} {count}')
    for name, kind, explained, value in (
        ("connections_accepted_total", "counter", "Connections since the start.", all.accepted),
        ("requests_total", "counter", "Requests since the start.", all.requests),
        ("response_body_bytes_total", "counter", "Bytes of the bodies of responses.", all.sent),
        ("handlers_running", "gauge", "Handlers at work.", all.running),
        ("handlers_limit", "gauge", "Handlers that may be at work at once.", handlers),
        ("requests_queued", "gauge", "Requests that wait for a handler.", all.queued),
        ("access_log_dropped_total", "counter", "Requests that are missing in the access log.", all.dropped),
        ("processes", "gauge", "Processes that there are.", len(figures.processes)),
        ("processes_ended_total", "counter", "Processes that have ended.", figures.ended),
        ("uptime_seconds", "gauge", "Seconds since the start.", round(figures.uptime, 3)),
        ("cpu_seconds_total", "counter", "Processor time of all processes.", round(figures.cpu, 3)),
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
.processes { margin-bottom: 2rem } .processes td:last-child, .processes th:last-child { text-align: right }
.what { font-size: .85rem; opacity: .75 } .table { overflow-x: auto }
"""


def as_html(figures: Figures, handlers: int, path: str) -> str:
    """A page without scripts, readable by a person and on a telephone."""
    all, processes = figures.all, figures.processes
    facts = [
        ("open connections", all.open),
        ("requests", all.requests),
        ("requests a second", f"{all.requests / figures.uptime if figures.uptime else 0:.1f}"),
        ("handlers at work", f"{all.running} of {handlers}"),
        ("requests that wait", all.queued),
        ("sent", _size(all.sent)),
        ("processor", f"{figures.cpu:.1f} s"),
        ("up", _duration(figures.uptime)),
    ]
    boxes = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts)
    loops, python = figures.loops, f"Python {platform.python_version()}"
    if len(processes) == 1:
        (process,) = processes
        told = f"process {process.pid}, {_several(loops, 'loop')}, {python}"
        told += "; it is stopping" * (process.state == "leaving")
        tables = _states(all, process.loops if loops > 1 else [])
    else:
        told = f"{len(processes)} processes, {_several(loops, 'loop')}, {python}"
        tables = _processes(figures) + _states(all, [])
    where = escape(path)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta http-equiv="refresh" content="5">'
        f"<title>fibers: server status</title><style>{_STYLE}</style></head><body>"
        f"<h1>Server status</h1><p>{escape(told)}. For programs: "
        f'<a href="{where}?auto">?auto</a>, <a href="{where}?prometheus">?prometheus</a></p>'
        f"<dl>{boxes}</dl>{tables}</body></html>\n"
    )


def _states(all: Counts, loops: list[Counts]) -> str:
    """The table of states, with a column for each of `loops`."""
    most = max(all.states) or 1
    rows = ""
    for at, name in enumerate(NAMES):
        rows += (
            f'<tr id="{name}"><td>{name}<br><span class="what">{_EXPLAINED[at]}</span></td>'
            f"{_cells(loop.states[at] for loop in loops)}"
            f'<td class="count">{all.states[at]}</td>'
            f'<td style="width:35%"><span class="bar" style="width:{100 * all.states[at] / most:.0f}%"></span></td></tr>'
        )
    heads = "".join(f"<th>loop {number}</th>" for number in range(len(loops)))
    return (
        f'<div class="table"><table><thead><tr><th>connections</th>{heads}<th>now</th><th></th></tr></thead>'
        f"<tbody>{rows}</tbody><tfoot><tr><th>all</th>{_cells(loop.open for loop in loops)}"
        f'<td id="open">{all.open}</td><td></td></tr></tfoot></table></div>'
    )


_HEADS: Final = ("connections", "at work", "waiting", "accepted", "requests", "sent", "processor", "up")


def _processes(figures: Figures) -> str:
    """The table of processes: one row each, one for those that have ended, and the sums."""

    def row(name: str, counts: Counts, cpu: float | None, age: str) -> str:
        told = (counts.open, counts.running, counts.queued, counts.accepted, counts.requests, _size(counts.sent))
        return f"<td>{name}</td>{_cells((*told, _cpu(cpu), age))}</tr>"

    def live(process: Process) -> str:
        name = f'{process.pid}<br><span class="what">{process.state}</span>'
        return f'<tr id="process-{process.pid}">{row(name, process.all, process.cpu, _duration(process.age))}'

    rows = "".join(map(live, figures.processes))
    if figures.ended:
        name = f'ended<br><span class="what">{_several(figures.ended, "process", "es")}</span>'
        rows += f'<tr id="ended">{row(name, figures.past, figures.past_cpu, "")}'
    sums = row("all", figures.all, figures.cpu, _duration(figures.uptime))
    return (
        f'<div class="table"><table class="processes"><thead><tr><th>process</th>'
        f"{''.join(f'<th>{head}</th>' for head in _HEADS)}</tr></thead>"
        f'<tbody>{rows}</tbody><tfoot><tr id="sums">{sums}</tfoot></table></div>'
    )


def _cells(values: Iterable[object]) -> str:
    return "".join(f"<td>{value}</td>" for value in values)


def _cpu(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds:.2f} s"


def _several(count: int, what: str, ending: str = "s") -> str:
    return f"{count} {what}{ending * (count != 1)}"


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
