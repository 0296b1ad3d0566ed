"""What signals do to a server that is the program: SIGTERM and SIGINT stop it, SIGHUP reloads.

The first SIGTERM or SIGINT is a graceful stop; the second cuts what is left. KeyboardInterrupt is not raised meanwhile.
SIGHUP is taken only if there is something to reload; else it does what it did before.
"""

import logging
import signal
from collections.abc import Callable
from typing import Final

from ..threads.signals import SignalReceiver
from . import systemd
from .crew import Crew

_log: Final = logging.getLogger("fibers.server")

STOP: Final = (signal.SIGTERM, signal.SIGINT)


def obey(
    signals: SignalReceiver, crew: Crew, timeout: float | None, reload: Callable[[], object] | None, announce: bool
) -> None:
    """Do what arrives, until the receiver is closed. In a fiber of its own."""
    stopping = False
    for number in signals:
        if number == signal.SIGHUP:
            if reload is not None:
                _reload(reload, announce)
        elif stopping:
            _log.warning("%s again: what is left is cut", number.name)
            crew.hurry()
        else:
            stopping = True
            _log.info("%s: stopping, with %s for what is being handled", number.name, _seconds(timeout))
            if announce:
                systemd.stopping()
            crew.request_stop(timeout)


def _reload(reload: Callable[[], object], announce: bool) -> None:
    if announce:
        systemd.reloading()
    try:
        reload()
    except Exception:
        _log.exception("reloading failed; the server goes on as it was")
    if announce:
        systemd.ready()


def _seconds(timeout: float | None) -> str:
    return "as long as it takes" if timeout is None else f"{timeout:g} s"
