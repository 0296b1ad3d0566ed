"""Programs written for threads run on fibers: the standard library is patched so that what blocks suspends a fiber."""

from .applying import applied, is_patched, original, patch_all, verify
from .threads import NativeThread
from .verify import Escaped

__all__ = ["Escaped", "NativeThread", "applied", "is_patched", "original", "patch_all", "verify"]
