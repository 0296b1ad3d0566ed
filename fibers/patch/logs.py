"""What the runtime itself has to log, where `logging` stands on locks that suspend a fiber.

The runtime logs from where nothing may wait: inside the loop, and while a loop is being made. A handler's lock may be held
then by a fiber that waits. So such a record is handed to a fiber, which passes it on as soon as it can; its time and place
stay those of the event.
"""

import logging
from _thread import _local
from typing import Final

from ..core.runtime import spawn
from ..core.scheduler import Scheduler, on_new, state
from .journal import Journal
from .names import is_ours


class _Waiting(_local):
    """What was logged in a thread whose loop is being made."""

    def __init__(self) -> None:
        self.records: list[logging.LogRecord] = []


_waiting: Final = _Waiting()
#: Who logs while a loop is made.
_LOOP: Final = "fibers.eventloop"


class _Deferring(logging.Filter):
    """Lets a record pass where a handler may wait."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        scheduler = state.scheduler
        if scheduler is None:
            if record.name != _LOOP:
                return True  # any thread may wait
            _waiting.records.append(record)
            return False
        if scheduler.current is not None or scheduler.closed or scheduler.ending:
            return True
        spawn(_emit, record, name="log")
        return False


def _emit(record: logging.LogRecord) -> None:
    logging.getLogger(record.name).callHandlers(record)


def _flush(scheduler: Scheduler) -> None:
    """A loop has been made in this thread."""
    records, _waiting.records = _waiting.records, []
    for record in records:
        _emit(record)


def defer(journal: Journal) -> None:
    """Have our loggers do so."""
    deferring = _Deferring()
    for name in [*logging.root.manager.loggerDict]:
        if is_ours(name):
            logger = logging.getLogger(name)
            logger.addFilter(deferring)
            journal.record(logger.removeFilter, deferring)
    on_new.append(_flush)
    journal.record(on_new.remove, _flush)
