"""The import law: a file imports only from its own floor's earlier files or from lower floors.

The order below is the architecture. Who adds a file to the package adds it here, below everything that
imports it. Reading a floor from left to right gives an order in which its files can be understood.
"""

from pathlib import Path

import pytest
from support.layers import Floor, Law, Tree, code_lines
from support.once import once
from support.process import ROOT

pytestmark = once

FLOORS = [
    Floor(
        0,
        "event loop",
        [
            "errors",
            "eventloop/clock",
            "eventloop/timers",
            "eventloop/waiter",
            "eventloop/turns",
            "eventloop/posts",
            "eventloop/contract",
            "eventloop/descriptor",
            "eventloop/ownership",
            "eventloop/waker",
            "eventloop/pollers/__init__",
            "eventloop/pollers/select",
            "eventloop/pollers/kqueue_fifo",
            "eventloop/pollers/*",
            "eventloop/lifetime",
            "eventloop/polling",
            "eventloop/checks",
            "eventloop/checked",
            "eventloop/checked_poller",
            "eventloop/checked_polling",
            "eventloop/libevent_binding",
            "eventloop/libevent_base",
            "eventloop/libevent_timers",
            "eventloop/libevent_files",
            "eventloop/libevent",
            "eventloop/checked_libevent",
            "eventloop/__init__",
        ],
    ),
    Floor(
        1,
        "fibers",
        [
            "core/fiber",
            "core/standby",
            "core/waitqueue",
            "core/guard",
            "core/carrierpool",
            "core/tracebacks",
            "core/courtesy",
            "core/choosing",
            "core/carriers",
            "core/endings",
            "core/scheduler",
            "core/runtime",
            "core/local",
            "core/cancel",
            "core/lifecycle",
            "core/dump",
            "core/__init__",
            "lowlevel",
        ],
        third_party=["greenlet"],
    ),
    # Two wings in one order: sync first, so that io may import sync and sync never io.
    Floor(
        2,
        "sync",
        [
            "threads/workers",
            "threads/limiter",
            "threads/completion",
            "threads/to_thread",
            "from_thread",
            "threads/fiber_thread",
            "threads/futures",
            "threads/signals",
            "threads/__init__",
            "sync/waiting",
            "sync/event",
            "sync/lock",
            "sync/semaphore",
            "sync/condition",
            "sync/barrier",
            "sync/waitgroup",
            "sync/simplequeue",
            "sync/hooked",
            "sync/queue",
            "sync/__init__",
            "channels/passage",
            "channels/channel",
            "channels/readiness",
            "channels/selecting",
            "channels/__init__",
            "groups/group",
            "groups/pools",
            "groups/gathering",
            "groups/__init__",
            "deadlock",
        ],
        third_party=["greenlet"],
    ),
    Floor(
        2,
        "io",
        [
            "io/state",
            "io/lookups",
            "io/hosts",
            "io/names",
            "io/waiting",
            "io/operations",
            "io/connecting",
            "io/stream",
            "io/hop",
            "io/pipe",
            "io/inherited",
            "io/standard",
            "io/rawfile",
            "io/file",
            "io/os",
            "io/copying",
            "io/tls",
            "io/tls_bound",
            "io/tls_handshake",
            "io/tls_operations",
            "io/tls_sockets",
            "io/socket",
            "io/ssl",
            "io/happy_eyeballs",
            "io/pipeend",
            "io/pipefiles",
            "io/children",
            "io/communicating",
            "io/subprocess",
            "io/[!_]*",
            "io/__init__",
        ],
        third_party=["greenlet"],
    ),
    Floor(
        3,
        "leaves",
        [
            "measure/limits",
            "measure/options",
            "measure/progress",
            "measure/latency",
            "measure/snapshot",
            "measure/syscalls",
            "measure/process",
            "measure/load",
            "measure/server",
            "measure/waits",
            "measure/__init__",
            "backends/figures",
            "backends/rounds",
            "backends/counts",
            "backends/conduct",
            "backends/table",
            "backends/__init__",
            "info",
            "choice",
            "testing/leaks",
            "testing/idle",
            "testing/sequencer",
            "testing/clock",
            "testing/virtual",
            "testing/shuffle",
            "testing/runtime",
            "testing/memory/flow",
            "testing/memory/operation",
            "testing/memory/socket",
            "testing/memory/network",
            "testing/memory/__init__",
            "testing/__init__",
            "server/service",
            "server/systemd",
            "server/listeners",
            "server/accepting",
            "server/limits",
            "server/handlers",
            "server/datagrams",
            "server/share",
            "server/crew",
            "server/signalling",
            "server/scoreboard",
            "server/worker",
            "server/slots",
            "server/adoption",
            "server/forking",
            "server/processes",
            "server/master",
            "server/serving",
            "server/servers",
            "server/__init__",
            "http/errors",
            "http/head",
            "http/networks",
            "http/origin",
            "http/proxy",
            "http/body",
            "http/response",
            "http/filepart",
            "http/exchange",
            "http/logformat",
            "http/accesslog",
            "http/timeouts",
            "http/census",
            "http/published",
            "http/crowding",
            "http/hub",
            "http/line",
            "http/arrival",
            "http/connection",
            "http/secure",
            "http/service",
            "http/wsgi",
            "http/websocket",
            "http/figures",
            "http/status",
            "http/certificates",
            "http/serving",
            "http/request",
            "http/answers",
            "http/routes",
            "http/command",
            "http/__init__",
            "asyncio/selector",
            "asyncio/eventloop",
            "asyncio/home",
            "asyncio/awaiting",
            "asyncio/running",
            "asyncio/__init__",
            "patch/journal",
            "patch/originals",
            "patch/idents",
            "patch/locks",
            "patch/waiting",
            "patch/threads",
            "patch/handles",
            "patch/polling",
            "patch/descriptors",
            "patch/processes",
            "patch/semlocks",
            "patch/signalling",
            "patch/sockets",
            "patch/table",
            "patch/names",
            "patch/internals",
            "patch/existing",
            "patch/importing",
            "patch/libraries",
            "patch/ending",
            "patch/logs",
            "patch/verify",
            "patch/plugins",
            "patch/applying",
            "patch/program",
            "patch/startup",
            "patch/__init__",
            "compat/__init__",
            "compat/striking",
            "compat/running",
            "compat/program",
            "compat/alias",
            "compat/gevent/exceptions",
            "compat/gevent/_loop",
            "compat/gevent/hub",
            "compat/gevent/timeout",
            "compat/gevent/_links",
            "compat/gevent/_waiting",
            "compat/gevent/greenlet",
            "compat/gevent/event",
            "compat/gevent/lock",
            "compat/gevent/queue",
            "compat/gevent/_imap",
            "compat/gevent/pool",
            "compat/gevent/threadpool",
            "compat/gevent/local",
            "compat/gevent/time",
            "compat/gevent/socket",
            "compat/gevent/ssl",
            "compat/gevent/select",
            "compat/gevent/selectors",
            "compat/gevent/subprocess",
            "compat/gevent/os",
            "compat/gevent/fileobject",
            "compat/gevent/signal",
            "compat/gevent/util",
            "compat/gevent/baseserver",
            "compat/gevent/server",
            "compat/gevent/pywsgi",
            "compat/gevent/backdoor",
            "compat/gevent/monkey",
            "compat/gevent/__init__",
            "compat/gevent/__main__",
            "compat/eventlet/greenthread",
            "compat/eventlet/timeout",
            "compat/eventlet/event",
            "compat/eventlet/semaphore",
            "compat/eventlet/queue",
            "compat/eventlet/greenpool",
            "compat/eventlet/pools",
            "compat/eventlet/tpool",
            "compat/eventlet/green/os",
            "compat/eventlet/green/select",
            "compat/eventlet/green/selectors",
            "compat/eventlet/green/socket",
            "compat/eventlet/green/ssl",
            "compat/eventlet/green/subprocess",
            "compat/eventlet/green/time",
            "compat/eventlet/green/__init__",
            "compat/eventlet/patcher",
            "compat/eventlet/convenience",
            "compat/eventlet/hubs",
            "compat/eventlet/corolocal",
            "compat/eventlet/wsgi",
            "compat/eventlet/__init__",
            "compat/eventlet/__main__",
            "integrations/*",
            "demo/report",
            "demo/conduct",
            "demo/__init__",
            "__main__",
        ],
        third_party=["greenlet", "wsproto"],
    ),
    Floor(3, "pytest plugin", ["testing/plugin"], third_party=["greenlet", "pytest"]),
    Floor(
        3,
        "gunicorn",
        ["gunicorn/settings", "gunicorn/views", "gunicorn/application", "gunicorn/worker", "gunicorn/__init__"],
        third_party=["greenlet", "gunicorn"],
    ),
    Floor(
        3,
        "celery",
        ["celery/overtime", "celery/job", "celery/relay", "celery/pool", "celery/__init__"],
        third_party=["greenlet", "celery", "billiard", "kombu"],
    ),
]

# `fibers/__init__.py` shows what floors 1 and 2 offer, and the errors that they raise.
FACE_MAY_IMPORT = [
    "errors",
    *(entry for floor in FLOORS if floor.number in (1, 2) for entry in floor.files),
]

# (file, imported module): the reason why this import cannot stand at the top of the file.
DEFERRED: dict[tuple[str, str], str] = {
    ("eventloop/__init__.py", "a computed name"): "a poller's file imports only where its system call exists",
    ("eventloop/__init__.py", "select"): "asked which system calls this platform has",
    ("compat/eventlet/patcher.py", "a computed name"): "the module that the user names",
    ("compat/gevent/monkey.py", "a computed name"): "the module that the user names",
    ("patch/plugins.py", "importlib.metadata"): "loads all of email, and few programs have a package that plugs in",
    ("http/command.py", "a computed name"): "the application that the user names",
    ("info.py", "fibers.eventloop.libevent"): "the library may be missing, and is asked only where it is not",
}

CODE_LINES = 300

LAW = Law("fibers", FLOORS, FACE_MAY_IMPORT, DEFERRED, "FLOORS at the top of tests/test_layers.py")


@pytest.fixture(scope="module")
def tree() -> Tree:
    found = Tree(ROOT / "fibers", LAW)
    assert "errors" in found.sources, "the sources of the package are not where this test looks for them"
    return found


def test_every_file_has_its_place(tree: Tree) -> None:
    assert tree.unlisted() == []


def test_imports_point_down(tree: Tree) -> None:
    assert tree.wrong_arrows() == []


def test_no_import_hides_in_a_function(tree: Tree) -> None:
    assert tree.hidden_imports() == []


def test_the_event_loop_never_says_whom_it_serves(tree: Tree) -> None:
    assert tree.forbidden_words("eventloop", ["fiber", "greenlet"]) == []


def test_every_file_opens_with_its_theory(tree: Tree) -> None:
    assert tree.without_theory() == []


def test_files_stay_readable_in_one_sitting(tree: Tree) -> None:
    assert tree.too_long(CODE_LINES) == []


# -- the checker itself, on a building with every fault in it


@pytest.fixture
def bad(tmp_path: Path) -> Tree:
    files = {
        "__init__": '"""Face."""\nfrom pkg.low.a import f\nfrom pkg.mid import g\nfrom pkg.errors import E\n',
        "errors": '"""Errors."""\n',
        "low/__init__": '"""Low."""\nfrom pkg.low import a, b\n',
        "low/a": '"""A."""\nimport os\nfrom pkg.low.b import x\nfrom pkg import E\nimport greenlet\n',
        "low/b": '"""B."""\nfrom . import a\nfrom ..errors import E\nfrom pkg.mid import g\n',
        "low/c": '"""The widget of pkg.low: PKG_LOOP, "pkg", `python -m pkg`."""\n',
        "low/d": "\n# Theory of widgets.\nwidget_count = 1\nfrom pkg import low\n",
        "low/e": "x = 1\n",
        "mid": '"""Mid."""\nimport greenlet\nfrom typing import TYPE_CHECKING\n'
        "if TYPE_CHECKING:\n    from pkg.top import h\n\n"
        "def f():\n    import json\n    from pkg.low import a\n"
        "    import_module('pkg.top')\n    import pkg.missing\n",
        "equal_a": '"""Equal."""\nfrom pkg import equal_b\n',
        "equal_b": '"""Equal."""\n',
        "top": '"""Top."""\nfrom pkg import f, mid\nimport pkg\n',
        "stray": '"""Stray."""\n',
    }
    for name, source in files.items():
        path = tmp_path / "pkg" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    law = Law(
        "pkg",
        [
            Floor(0, "ground", ["errors", "low/a", "low/[b-e]", "low/__init__"]),
            Floor(1, "", ["mid", "equal_*"], third_party=["greenlet"]),
            Floor(2, "leaves", ["top"]),
        ],
        face_may_import=["errors", "mid"],
        deferred={("mid.py", "json"): "slow to load", ("mid.py", "csv"): "gone"},
        table="the table",
    )
    return Tree(tmp_path / "pkg", law)


def test_checker_names_the_stray_file(bad: Tree) -> None:
    (offence,) = bad.unlisted()
    assert offence.startswith("pkg/stray.py stands on no floor: add it to the table")


def test_checker_names_each_wrong_arrow_and_no_other(bad: Tree) -> None:
    assert bad.wrong_arrows() == [
        "pkg/__init__.py:2 (the public face) must not import pkg.low.a (floor 0 ground): only errors, mid",
        "pkg/equal_a.py:2 (floor 1) must not import pkg.equal_b (floor 1): they are equals",
        "pkg/low/a.py:3 (floor 0 ground) must not import pkg.low.b (which comes later in the same floor)",
        "pkg/low/a.py:4 (floor 0 ground) must not import from the public face, pkg/__init__.py",
        "pkg/low/a.py:5 (floor 0 ground) must not import greenlet, which is no part of Python",
        "pkg/low/b.py:4 (floor 0 ground) must not import pkg.mid (floor 1)",
        "pkg/low/d.py:4 (floor 0 ground) must not import pkg.low (which comes later in the same floor)",
        "pkg/mid.py:5 (floor 1) must not import pkg.top (floor 2 leaves)",
        "pkg/mid.py:10 (floor 1) must not import pkg.top (floor 2 leaves)",
        "pkg/mid.py:11 (floor 1) imports pkg.missing, which does not exist",
    ]


def test_checker_wants_a_reason_for_hidden_imports_and_an_import_for_reasons(bad: Tree) -> None:
    assert bad.hidden_imports() == [
        "pkg/mid.py:9 imports pkg.low.a inside f(): import it at the top, or record the reason",
        "pkg/mid.py:10 imports pkg.top inside import_module(): import it at the top, or record the reason",
        "pkg/mid.py:11 imports pkg.missing inside f(): import it at the top, or record the reason",
        "the exception for mid.py importing csv is not needed any more: remove it",
    ]


def test_checker_hears_words_but_not_the_own_name(bad: Tree) -> None:
    assert [offence.split(",")[0] for offence in bad.forbidden_words("low", ["widget", "pkg"])] == [
        "pkg/low/c.py:1 says 'widget'",
        "pkg/low/d.py:2 says 'widget'",
        "pkg/low/d.py:3 says 'widget'",
    ]


def test_checker_wants_an_opening(bad: Tree) -> None:
    assert bad.without_theory() == ["pkg/low/e.py does not say what it is: open it with a docstring or a comment"]


def test_checker_counts_code_and_nothing_else(bad: Tree) -> None:
    source = '"""Doc\nstring."""\n\n# comment\nx = """two\nlines"""\n\n\n'
    source += 'def f():\n    """Doc."""\n    return 1  # end\n'
    assert code_lines(source) == {5, 6, 9, 11}
    assert [offence.split(",")[0] for offence in bad.too_long(6)] == ["pkg/mid.py has 9 lines of code"]
