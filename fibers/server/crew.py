"""The shares of a server in one process: one in the loop of the caller, or several in threads of their own.

With `threads=1` the server is a fiber of the calling thread and serves while that thread waits in fibers (anything of
this package that blocks). With more, each share has a FiberThread; the caller's thread is left alone. Either way a stop
comes to all of them at once, and the first listener that fails for good stops the others: a server that listens with
three of its four listeners is worse than one that is started again.
"""

import logging
import os
import threading
from collections.abc import Sequence
from contextvars import Context, copy_context
from time import monotonic
from typing import Final

from ..core.cancel import shield
from ..core.runtime import spawn
from ..io.socket import socket
from ..threads.completion import Completion, Outside
from ..threads.fiber_thread import FiberThread
from .service import MakeService
from .share import MakeIntake, Report, Share

_log: Final = logging.getLogger("fibers.server")

Row = Sequence[tuple[socket, str]]


class Crew:
    """See the module's text. Every method may be called from any thread, except `start`."""

    def __init__(
        self,
        rows: Sequence[Row],
        make_service: MakeService,
        make_intake: MakeIntake,
        heartbeat: float | None = None,
        adopts: bool = False,
    ) -> None:
        self._shares = [Share(self, row, make_service, make_intake, heartbeat, adopts) for row in rows]
        self._threads: list[FiberThread] = []
        self._left = len(self._shares)
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._timeout: float | None = None
        self.over = Completion(Outside())
        self.error: BaseException | None = None  # what a listener has failed of
        self.retiring: str | None = None  # why this process should be replaced
        self.on_retire = Completion(Outside())

    def start(self, timeout: float | None, *, own_threads: bool) -> None:
        """Start the shares; returns when all serve, or raises what one has failed of, and then none is left.

        `timeout` is the one of a stop that nobody has asked for.
        """
        self._timeout = timeout
        begun = 0
        try:
            for share in self._shares:
                if own_threads:
                    thread = FiberThread(_run, share, copy_context(), name=f"fibers server {begun}", daemon=True)
                    thread.start()
                    self._threads.append(thread)
                else:
                    spawn(share.run, name="server")
                begun += 1
            for share in self._shares:
                share.stands.wait(what=share)
                if share.error is not None:
                    raise share.error
        except BaseException:
            for share in self._shares[begun:]:
                share.over.complete()
                self.share_over()
            with shield():
                self.finish(0, drain=False)
            raise

    def request_stop(self, timeout: float | None, drain: bool = True) -> None:
        """Stop; returns at once. See `Share.stop`."""
        for share in self._shares:
            share.stop(timeout, drain)

    def hurry(self) -> None:
        """Their time is up."""
        for share in self._shares:
            share.hurry()

    def adopt(self, owner: int, loop: int, listeners: Sequence[socket]) -> None:
        """Accept on these as well, in one of the loops. For a crew that `adopts`; see `Share.adopt`."""
        self._shares[loop].adopt(owner, listeners)

    def release(self, owner: int) -> None:
        """No longer."""
        for share in self._shares:
            share.release(owner)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end, at most for `timeout` seconds; False if it has not come."""
        return self.over.wait(timeout, self)

    def stop(self, timeout: float | None, drain: bool = True) -> Report:
        """Stop and wait for the end; what came of it. Called again meanwhile, the shorter time holds."""
        if self._pid != os.getpid():
            return Report(0, (), ())  # a child of a fork has no part in it
        self.request_stop(timeout, drain)
        if not self.wait(timeout):
            self.hurry()
            self.wait()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        return self.report()

    def finish(self, timeout: float | None, drain: bool = True) -> Report:
        """As `stop`; if that is interrupted, at once, and then the interruption goes on."""
        try:
            return self.stop(timeout, drain)
        except BaseException:
            with shield():
                self.stop(0, drain)
            raise

    def report(self) -> Report:
        """What became of the connections. When it is over."""
        return Report.of_all([share.report for share in self._shares])

    def connections(self) -> int:
        """How many there are now."""
        return sum(share.service.open() for share in self._shares if share.service is not None)

    def last_beat(self) -> float:
        """When all loops were seen to turn, by `time.monotonic`."""
        return min((share.beat for share in self._shares if not share.over.done), default=monotonic())

    # -- for the shares -----------------------------------------------------------------------------------------------

    def share_failed(self, error: BaseException) -> None:
        """See `share.Owner`."""
        if self.error is None:
            self.error = error
            _log.error("a listener has failed, and so the server stops", exc_info=error)
        self.request_stop(self._timeout)

    def share_over(self) -> None:
        """See `share.Owner`."""
        with self._lock:
            self._left -= 1
        if not self._left:
            self.over.complete()

    def retire(self, reason: str) -> None:
        """See `share.Owner`."""
        if self.retiring is None:
            self.retiring = reason
            _log.info("this process has done enough: %s", reason)
            self.on_retire.complete()

    def __repr__(self) -> str:
        return f"<the {len(self._shares)} loops of a server>"


def _run(share: Share, context: Context) -> None:
    """The main fiber of a thread."""
    spawn(share.run, context=context, name="server").join()
