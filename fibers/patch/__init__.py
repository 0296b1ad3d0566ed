"""Programs written for threads run on fibers: the standard library is patched so that what blocks suspends a fiber."""

from .applying import applied, is_patched, original, patch_all
from .threads import NativeThread

__all__ = ["NativeThread", "applied", "is_patched", "original", "patch_all"]
