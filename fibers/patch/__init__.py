"""Programs written for threads run on fibers: the standard library is patched so that what blocks suspends a fiber.

    import fibers.patch
    fibers.patch.patch_all()                        the first thing that the program does

    python -m fibers run script.py                  the same, without touching the program
    FIBERS_PATCH=1 python script.py                 the same, after `python -m fibers pth install`

There is one table, {name in the standard library: ours} (table.py). Functions and C types are replaced by identity wherever
a loaded module holds them (names.py); classes written in Python keep their identity, and get our methods in place
(sockets.py); locks made before are replaced as a whole or left alone (existing.py); our own modules keep the originals
(internals.py). What was changed is written down (journal.py), so that `applied()` can undo it and a failure leaves nothing
half done. What still holds on to the old things is found by `verify()`. The guide is docs/patching.md.

Nothing below imports this package: fibers work the same without it.
"""

from .applying import applied, is_patched, original, patch_all, verify
from .importing import when_imported
from .journal import Journal
from .threads import NativeThread
from .verify import Escaped

__all__ = [
    "Escaped",
    "Journal",
    "NativeThread",
    "applied",
    "is_patched",
    "original",
    "patch_all",
    "verify",
    "when_imported",
]
