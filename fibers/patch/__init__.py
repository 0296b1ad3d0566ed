"""Programs written for threads run on fibers: the standard library is patched so that what blocks suspends a fiber."""

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
