"""eventlet.patcher: monkey_patch, which is `fibers.patch`; and import_patched, a fresh copy of a module on our sockets.

A module that `import_patched` imports sees the modules of `eventlet.green` under the names of the standard ones. So do
those of the standard library that it imports and that stand on sockets, which are imported anew with it. The rest of the
program goes on with what it has.
"""

import importlib
import sys
from types import ModuleType
from typing import Any, Final

from ...io import os, socket, ssl, subprocess
from ...patch.applying import is_patched, patch_all
from ...patch.originals import STANDARD, module
from ...patch.table import ALIASES, GROUPS
from ..gevent import select, selectors, time

#: What is seen under the names of standard modules.
GREEN: Final[dict[str, ModuleType]] = {
    "os": os, "select": select, "selectors": selectors, "socket": socket, "ssl": ssl, "subprocess": subprocess, "time": time,
}  # fmt: skip

#: Modules of the standard library that stand on sockets.
_ANEW: Final = (
    "http.client", "http.server", "socketserver", "urllib.request", "urllib.error", "ftplib", "smtplib", "poplib", "imaplib",
    "xmlrpc.client", "xmlrpc.server",
)  # fmt: skip

_NEEDLESS: Final = frozenset(("all", "builtins", "psycopg", "MySQLdb"))
_patched: Final[set[str]] = set()


def monkey_patch(**on: bool) -> None:
    """Patch the standard library: all of it; what is True; or all but what is False.

    `psycopg`, `MySQLdb` and `builtins` have nothing to be patched here. TypeError for unknown names.
    """
    for name in on:
        if name not in _NEEDLESS and name not in GROUPS and name not in ALIASES:
            raise TypeError(f"monkey_patch() got an unexpected keyword argument {name!r}")
    default = on.get("all", not any(on.values()))
    wanted = {name: on.get(name, default) for name in GROUPS}
    wanted.update({ALIASES[name]: value for name, value in on.items() if name in ALIASES})
    chosen = [name for name, value in wanted.items() if value]
    if chosen:
        patch_all(**dict.fromkeys(chosen, True))
        _patched.update(chosen)


def is_monkey_patched(module: str | ModuleType) -> bool:
    """Has this standard module been patched?"""
    name = module if isinstance(module, str) else module.__name__
    return ALIASES.get(name, name) in _patched


def original(modname: str) -> ModuleType:
    """A module as it was before it was patched."""
    return module(modname) if modname in STANDARD else importlib.import_module(modname)


def import_patched(
    module_name: str, *additional_modules: tuple[str, ModuleType], **kw_additional_modules: ModuleType
) -> Any:
    """A fresh copy of a module, on our sockets: see the module's text. Further modules for it to see may be given."""
    seen = GREEN | dict(additional_modules) | kw_additional_modules
    set_aside = {
        name: found
        for name, found in list(sys.modules.items())
        if name in seen or name in _ANEW or name == module_name or name.startswith(f"{module_name}.")
    }
    try:
        for name in set_aside:
            sys.modules.pop(name, None)
        sys.modules.update(seen)
        importlib.import_module(module_name)
        return sys.modules[module_name]
    finally:
        for name in (*seen, *_ANEW, *[each for each in sys.modules if each.startswith(f"{module_name}.")], module_name):
            sys.modules.pop(name, None)
        sys.modules.update(set_aside)


__all__ = ["import_patched", "is_monkey_patched", "is_patched", "monkey_patch", "original"]
