"""Who accepts for whom: listeners whose process is missing are minded by neighbours.

Facts, and what follows:

* With a listener for each process the kernel goes on giving a missing process its share: these connections wait in the
  queue until there is a successor. That may take long, if the program loads slowly or dies again and again; and a slot that
  was given up (SIGTTOU) has none. Closing its listener would reset who is in the queue, and who is on the way there.
* So the master, who has all listeners, passes duplicates of an orphan's to processes that serve (SCM_RIGHTS, over the
  link); they accept from them as from their own. When the slot has a process that is ready, they let go.
* Two neighbours for each orphan: one may be busy with something long, and all of them would be woken for each connection.
  Those that have the fewest orphans get the next.
* Where all processes share one listener (unix sockets, given ones, systems without balancing) there are no orphans. It is
  known by the inode: duplicates have the same.
"""

import os
from collections import Counter
from collections.abc import Sequence
from typing import Final

from ..io.socket import socket
from .slots import Slot

#: Processes that accept for an orphan.
NEIGHBOURS: Final = 2


def own_listeners(rows: Sequence[Sequence[Sequence[tuple[socket, str]]]]) -> list[list[list[socket]]]:
    """Of the rows of each slot: the listeners that no other slot has."""
    inodes = [[[os.fstat(listener.fileno()).st_ino for listener, _ in row] for row in slot] for slot in rows]
    users: Counter[int] = Counter()
    for slot in inodes:
        users.update({inode for row in slot for inode in row})
    return [
        [
            [listener for (listener, _), inode in zip(row, numbers, strict=True) if users[inode] == 1]
            for row, numbers in zip(slot, found, strict=True)
        ]
        for slot, found in zip(rows, inodes, strict=True)
    ]


def mind_orphans(slots: Sequence[Slot]) -> None:
    """Have each slot without a process that serves be minded by neighbours, and no other."""
    able = [slot.worker for slot in slots if slot.worker is not None and slot.serves()]
    for slot in slots:
        minders = [worker for worker in able if slot in worker.minds]
        if slot.serves():
            for worker in minders:
                worker.release(slot)
        elif len(minders) < NEIGHBOURS and any(slot.own):
            others = sorted((worker for worker in able if slot not in worker.minds), key=lambda each: len(each.minds))
            for worker in others[: NEIGHBOURS - len(minders)]:
                worker.adopt(slot)
