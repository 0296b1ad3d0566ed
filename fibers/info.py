"""`python -m fibers info`: what this installation runs on.

A report about a misbehaving program is worth little without the event loop, the versions and the platform, and the one
thing that cannot be guessed from outside is *which loop is in use and why not another*. So the facts are collected once,
as plain data (`collect`), and printed either for people or, with --json, for programs.
"""

import importlib
import json
import os
import platform
import sys
from importlib.metadata import version
from typing import Any

from . import __version__
from .eventloop import BACKEND, CHECKED, available
from .eventloop.ownership import STRICT

_DEBUG = {
    "": "off; FIBERS_DEBUG=loop makes the event loops check that they keep their contract",
    "loop": "loop: the event loops check that they keep their contract, and are slower",
}
_OWNERSHIP = {
    "default": "default: an fd with nothing pending moves to the thread that waits for it",
    "strict": "strict: a wait on an fd of another thread's loop is always an error",
}


def collect() -> dict[str, Any]:
    """The facts, made of dicts, strings and None only. `backends` maps each name to None or to why it is not usable;
    `libevent` is None where the library cannot be used.
    """
    backends = available()
    return {
        "fibers": __version__,
        "backend": BACKEND,
        "chosen_by": "FIBERS_EVENTLOOP" if os.environ.get("FIBERS_EVENTLOOP") else "default",
        "backends": backends,
        "libevent": _libevent() if backends["libevent"] is None else None,
        "debug": "loop" if CHECKED else "",
        "ownership": "strict" if STRICT else "default",
        "python": {
            "implementation": platform.python_implementation(),
            "version": platform.python_version(),
            "executable": sys.executable,
        },
        "greenlet": version("greenlet"),
        "platform": platform.platform(),
    }


def _libevent() -> dict[str, str]:
    """What the library says of itself: its version, and what it would wait with here (EVENT_NOEPOLL=1 … change that)."""
    module = importlib.import_module("fibers.eventloop.libevent")
    base = module.Base()
    try:
        return {"version": module.VERSION, "method": base.method}
    finally:
        base.close()


def as_json(facts: dict[str, Any]) -> str:
    """For programs."""
    return json.dumps(facts, indent=2)


def as_text(facts: dict[str, Any]) -> str:
    """For people: one fact a line, the unusable event loops below the usable ones with their reasons."""
    backends: dict[str, str | None] = facts["backends"]
    chosen_by = "the default here" if facts["chosen_by"] == "default" else "chosen by FIBERS_EVENTLOOP"
    python = facts["python"]
    libevent: dict[str, str] | None = facts["libevent"]
    rows = [
        ("fibers", facts["fibers"]),
        ("event loop", f"{facts['backend']}, {chosen_by}"),
        ("available", ", ".join(name for name, why_not in backends.items() if why_not is None)),
        *(("not here", f"{name}: {why_not}") for name, why_not in backends.items() if why_not is not None),
        *([("libevent", f"{libevent['version']}, waits with {libevent['method']}")] if libevent else []),
        ("debug", _DEBUG[facts["debug"]]),
        ("ownership", _OWNERSHIP[facts["ownership"]]),
        ("Python", f"{python['implementation']} {python['version']}, {python['executable']}"),
        ("greenlet", facts["greenlet"]),
        ("platform", facts["platform"]),
    ]
    return "\n".join(f"{label:<12}{text}" for label, text in rows)
