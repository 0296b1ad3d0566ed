"""What the master knows: slots, the workers in them, and who is to succeed whom. No system calls but on links.

What is said on a link is worker.py's matter.
"""

import socket as std
from collections.abc import Sequence
from time import monotonic
from typing import Final

from ..io.socket import socket
from . import worker as says
from .crew import Row
from .share import Report

#: Seconds that a worker has to live for its slot not to be in trouble.
SOUND: Final = 5.0
#: Seconds of the pause after a second early death in a row, and of the longest; it doubles.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 10.0


class Slot:
    """A place for one worker at a time, with the listeners that go from one to the next; `own`: that no other slot has."""

    def __init__(self, place: int, rows: Sequence[Row], own: Sequence[Sequence[socket]]) -> None:
        self.place = place
        self.rows = rows
        self.own = own  # for each loop
        self.vacant = False  # there is to be no worker
        self.worker: Worker | None = None
        self.heir: Worker | None = None  # that is to be the next worker
        self.due: float | None = None  # when one is to be started
        self._early_deaths = 0

    def serves(self) -> bool:
        """Does its worker accept connections?"""
        worker = self.worker
        return worker is not None and worker.ready and not worker.gone and worker.aborted_at is None

    def pause(self, worker: "Worker", now: float) -> float:
        """This worker has died at `now`: in how many seconds to start another."""
        self._early_deaths = self._early_deaths + 1 if now - worker.born < SOUND else 0
        if self._early_deaths < 2:
            return 0.0
        return float(min(FIRST_PAUSE * 2 ** (self._early_deaths - 2), LONGEST_PAUSE))

    def close(self) -> None:
        """This process's descriptors of the listeners."""
        for row in self.rows:
            for listener, _ in row:
                listener.close()


class Worker:
    """A process, as its master sees it."""

    def __init__(self, pid: int, slot: Slot, link: std.socket, place: int) -> None:
        self.pid = pid
        self.slot = slot
        self.place = place  # on the scoreboard
        self.minds: set[Slot] = set()  # for which it accepts, too
        self.link = link
        self.link.setblocking(False)
        self.born = self.beat = monotonic()
        self.ready = False
        self.gone = False
        self.retiring = False  # it has asked to be replaced
        self.leave_by: float | None = None  # it has been told to leave, and when it is to be gone
        self.aborted_at: float | None = None
        self.report: Report | None = None
        self._heard = b""

    def say(self, word: str) -> None:
        """Tell it something. If it does not listen any more, that does not matter."""
        try:
            self.link.send(f"{word}\n".encode())
        except OSError:
            pass

    def adopt(self, slot: Slot) -> None:
        """Have it accept for a slot as well. If its link is full, it will be asked again."""
        try:
            for loop, listeners in enumerate(slot.own):
                if listeners:
                    said = f"{says.ADOPT} {slot.place} {loop} {len(listeners)}\n".encode()
                    std.send_fds(self.link, [said], [listener.fileno() for listener in listeners])
        except OSError:
            self.say(f"{says.RELEASE} {slot.place}")  # what it got before
        else:
            self.minds.add(slot)

    def release(self, slot: Slot) -> None:
        """Have it do so no longer."""
        self.minds.discard(slot)
        self.say(f"{says.RELEASE} {slot.place}")

    def lines(self) -> list[str]:
        """What it has said since we last looked."""
        while self.link.fileno() >= 0:
            try:
                data = self.link.recv(65_536)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.link.close()  # it has ended, or is about to
                break
            self._heard += data
        *lines, self._heard = self._heard.split(b"\n")
        return [line.decode() for line in lines]


class Succession:
    """Workers that are to succeed others, all of them or none."""

    def __init__(self, heirs: Sequence[Worker], reload: bool) -> None:
        self.heirs = heirs
        self.reload = reload

    def failed(self) -> bool:
        """Has one of them ended?"""
        return any(heir.gone for heir in self.heirs)

    def ready(self) -> bool:
        """Are all of them ready?"""
        return all(heir.ready for heir in self.heirs)
