"""gevent.monkey: the standard library on fibers. What does it is `fibers.patch`."""

import sys
import warnings
from collections.abc import Callable
from typing import Any, Final

from ...patch.applying import is_patched, original
from ...patch.applying import patch_all as _patch_all
from ...patch.originals import STANDARD
from ...patch.table import ALIASES, GROUPS

#: gevent's names for what we patch under other ones, or always; and what needs no patch here.
_SAME: Final = {"dns": "socket"}
_NEEDLESS: Final = frozenset(("sys", "builtins", "contextvars", "Event", "aggressive"))


class MonkeyPatchWarning(RuntimeWarning):
    """Never issued here: `fibers.patch.verify()` tells what has escaped."""


def patch_all(**which: bool) -> bool:
    """Patch the standard library: all of it, but what is False. Options of gevent that mean nothing here are ignored."""
    for name in which:
        if name not in _NEEDLESS and _SAME.get(name, name) not in (*GROUPS, *ALIASES):
            warnings.warn(f"fibers has nothing to patch that is called {name!r}", RuntimeWarning, stacklevel=2)
    without = [name for name, wanted in which.items() if not wanted and name in (*GROUPS, *ALIASES)]
    _patch_all(**dict.fromkeys(without, False))
    return True


def _only(group: str) -> Callable[..., None]:
    def patch(*args: object, **options: object) -> None:
        _patch_all(**{group: True})

    patch.__name__ = f"patch_{group}"
    patch.__doc__ = f"Patch `{group}` alone. Options are ignored."
    return patch


patch_os = _only("os")
patch_queue = _only("queue")
patch_select = _only("select")
patch_signal = _only("signal")
patch_socket = _only("socket")
patch_ssl = _only("ssl")
patch_subprocess = _only("subprocess")
patch_thread = _only("thread")
patch_time = _only("time")
patch_dns = patch_socket


def patch_sys(*args: object, **options: object) -> None:
    """Nothing to do: standard input and output are not touched."""


patch_builtins = patch_contextvars = patch_sys


def get_original(mod_name: str, item_name: Any) -> Any:
    """What a name in a standard module stood for before it was patched. Several names: a list."""
    if not isinstance(item_name, str):
        return [get_original(mod_name, each) for each in item_name]
    if mod_name in STANDARD:
        return original(f"{mod_name}.{item_name}")
    __import__(mod_name)
    return getattr(sys.modules[mod_name], item_name)


def is_object_patched(mod_name: str, item_name: str) -> bool:
    """Does that name stand for something else now?"""
    return mod_name in STANDARD and is_patched(f"{mod_name}.{item_name}")


_WITNESS: Final = {
    "socket": "socket.recv", "ssl": "SSLSocket.read", "select": "select", "threading": "get_ident", "_thread": "get_ident",
    "time": "sleep", "os": "read", "subprocess": "Popen.wait", "signal": "signal", "queue": "SimpleQueue",
}  # fmt: skip


def is_module_patched(mod_name: str) -> bool:
    """Is something in a standard module patched?"""
    return mod_name in _WITNESS and is_object_patched(mod_name, _WITNESS[mod_name])


def is_anything_patched() -> bool:
    """Is anything?"""
    return any(map(is_module_patched, _WITNESS))


__all__ = [
    "MonkeyPatchWarning", "get_original", "is_anything_patched", "is_module_patched", "is_object_patched", "patch_all",
    "patch_builtins", "patch_contextvars", "patch_dns", "patch_os", "patch_queue", "patch_select", "patch_signal",
    "patch_socket", "patch_ssl", "patch_subprocess", "patch_sys", "patch_thread", "patch_time",
]  # fmt: skip
