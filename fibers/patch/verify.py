"""What has escaped: references to what was replaced that are still held by somebody.

Looked for are holders that the collector knows: closures, containers, partials, suspended frames, classes derived from a C
type before it was replaced, and the locks that were left alone (existing.py). It does not know what C code and running
functions hold. What has escaped works as it ever did, and blocks its thread.
"""

import gc
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import (
    BuiltinMethodType,
    CellType,
    ClassMethodDescriptorType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, Final

from . import existing
from .names import is_ours
from .originals import STANDARD
from .threads import Sentinel

#: Names and originals, by the id of the original.
Replaced = Mapping[int, tuple[str, Any]]

#: What a C type consists of.
_PARTS: Final = (
    BuiltinMethodType, ClassMethodDescriptorType, GetSetDescriptorType, MemberDescriptorType, MethodDescriptorType,
    MethodWrapperType, WrapperDescriptorType,
)  # fmt: skip
#: A hook, which nobody waits in.
_HARMLESS: Final = {"threading.excepthook"}


@dataclass(frozen=True)
class Escaped:
    """A reference to `name`, as it was before, and where it is held."""

    name: str
    where: str

    def __str__(self) -> str:
        return f"{self.name}: {self.where}"


def escaped(replaced: Replaced) -> list[Escaped]:
    """All that are found."""
    wanted = {key: value for key, value in replaced.items() if value[0] not in _HARMLESS}
    found = {*_references(wanted), *_derived(wanted), *_left_alone()}
    return sorted(found, key=str)


def _references(replaced: Replaced) -> Iterator[Escaped]:
    originals = [value for _, value in replaced.values()]
    for holder in gc.get_referrers(*originals):
        if holder is originals or _is_own(holder, originals):
            continue
        for value in gc.get_referents(holder):
            if id(value) in replaced and (where := _where(holder, value)) is not None:
                yield Escaped(replaced[id(value)][0], where)


def _is_own(holder: Any, originals: list[Any]) -> bool:
    """Is it ours, or a part of CPython's own bookkeeping?"""
    if type(holder) is tuple:
        # A pair of `replaced`, annotations of a function, or the arguments of `get_referrers`.
        return (len(holder) > 0 and isinstance(holder[0], str)) or (
            len(holder) == len(originals) and holder[-1] is originals[-1]
        )
    if type(holder) is dict:
        name = holder.get("__name__")
        if isinstance(name, str) and name in STANDARD and vars(STANDARD[name]) is not holder:
            return True  # one of our copies, or the one that CPython keeps of a module in C
        return is_ours(str(name)) or is_ours(str(holder.get("__module__")))
    return is_ours(str(type(holder).__module__)) or (
        isinstance(holder, type | FunctionType) and is_ours(str(holder.__module__))
    )


def _is_part(holder: Any, value: Any) -> bool:
    """Does a function or C type itself consist of this, or is this of no use for calling it?"""
    if isinstance(holder, ModuleType):
        return True  # the inside of a module in C
    if not isinstance(value, type):
        return False
    if issubclass(type(holder), value | type):
        return True  # instances and derived classes are looked at for themselves
    if type(holder) in _PARTS:
        return getattr(holder, "__objclass__", None) is value or getattr(holder, "__self__", None) is value
    if type(holder) is tuple:
        return all(isinstance(each, type) for each in holder)  # bases, or an order of them
    return type(holder) is dict and not any(each is value for each in holder.values())


def _where(holder: Any, value: Any) -> str | None:
    """A sentence for people; None: that is no escape."""
    if _is_part(holder, value):
        return None
    owners = [each for each in gc.get_referrers(holder) if type(each) is not list]
    if type(holder) is CellType:
        users = [_name(each) for each in _functions_of(owners)]
        return f"in a closure of {', '.join(users)}" if users else "in a closure"
    if type(holder) is dict:
        keys = [key for key, each in holder.items() if each is value]
        if "__name__" in holder and "__builtins__" in holder:
            return f"{keys[0]} in module {holder['__name__']}"
        for owner in owners:
            if existing.namespace_of(owner) is holder:
                return f"{keys[0]} of {_short(owner)}"
        return f"in a dict, under {', '.join(map(repr, keys)) or 'as a key'}"
    return f"in {_short(holder)}"


def _functions_of(owners: list[Any]) -> Iterator[Any]:
    """The functions whose closures are among these tuples."""
    closures = [owner for owner in owners if type(owner) is tuple]
    for owner in gc.get_referrers(*closures) if closures else ():
        if isinstance(owner, FunctionType):
            yield owner


def _derived(replaced: Replaced) -> Iterator[Escaped]:
    for name, value in replaced.values():
        if isinstance(value, type):
            derived: list[type] = value.__subclasses__()
            for kind in derived:
                if not is_ours(kind.__module__):
                    yield Escaped(name, f"derived from by {_name(kind)}")


def _left_alone() -> Iterator[Escaped]:
    sentinels = set(getattr(threading, "_shutdown_locks", ()))
    sentinels |= {getattr(thread, "_tstate_lock", None) for thread in threading.enumerate()}
    for held in existing.survey():
        if held.what in sentinels or held.ours or existing.kept(held) or isinstance(held.what, Sentinel):
            continue
        kind = type(held.what)
        state = ", which is held," if repr(held.what).startswith("<locked") else ""
        name = f"a {kind.__module__}.{kind.__qualname__}{state}"
        yield Escaped(name, f"made before, in {', '.join(held.holders) or 'C code or a function that runs'}")


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', None) or '?'}.{getattr(thing, '__qualname__', None) or _short(thing)}"


def _short(thing: Any) -> str:
    if isinstance(thing, BuiltinMethodType):
        return f"{thing.__qualname__} of a {type(thing.__self__).__name__}"
    text = object.__repr__(thing)
    return text if len(text) < 200 else f"{text[:200]}…"
