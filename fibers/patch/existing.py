"""Locks, thread-local objects and simple queues that were made before: replaced where they are held, if that is safe.

A program that is patched has imported `logging`, `threading` and who knows what, which have made their locks from the C
types. A fiber that waits for such a lock blocks its thread, and with it whoever holds the lock: for ever. So each is
replaced by one of ours, everywhere at once, or left alone: half replaced, a lock protects nothing. Left alone are

* those that are held, or used, at this moment,
* those of which not every reference can be found and changed: the collector knows all that Python objects hold, and the
  reference count tells whether C code or a running function holds one besides,
* our own (they are for threads), and those of `threading` itself, which nobody waits under,
* all of them if other threads run, which may be about to take one.

What was left alone is listed by `verify()`, and goes on working, for threads.
"""

import _queue
import _thread
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import BuiltinMethodType, CellType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any, Final

from ..core.local import Local
from ..sync.simplequeue import SimpleQueue
from .journal import Journal, put
from .locks import Lock, RLock
from .names import is_ours

_LockType: Final = _thread.LockType
_RLockType: Final = type(_thread.RLock())
_LocalType: Final = _thread._local
_QueueType: Final = _queue.SimpleQueue


def _new_lock(old: Any) -> Any:
    return None if old.locked() else Lock()


def _new_rlock(old: Any) -> Any:
    return None if "owner=0 " not in repr(old) else RLock()


def _new_local(old: Any) -> Any:
    new = Local()
    for name, value in vars(old).items():
        setattr(new, name, value)
    return new


def _new_queue(old: Any) -> Any:
    new: SimpleQueue[Any] = SimpleQueue()
    while not old.empty():
        new.put(old.get_nowait())
    return new


_MAKERS: Final[dict[type, Callable[[Any], Any]]] = {
    _LockType: _new_lock,
    _RLockType: _new_rlock,
    _LocalType: _new_local,
    _QueueType: _new_queue,
}


#: Locks of `threading` that are let go again at once.
KEPT: Final = ("_active_limbo_lock", "_shutdown_locks_lock")
#: Types of the objects that are looked for.
TYPES: Final = tuple(_MAKERS)

#: Puts a value into one of the places that hold an object.
Setter = Callable[[Any], None]


class _Held:
    """An object, or a bound method of one, and the places that hold it."""

    __slots__ = ("holders", "methods", "ours", "safe", "setters", "what")

    def __init__(self, what: Any) -> None:
        self.what = what
        self.setters: list[Setter] = []
        self.safe = True  # every place that was found can be changed
        self.methods: list[_Held] = []
        self.ours = False  # one of our own modules has it
        self.holders: list[str] = []  # for people

    def all_found(self) -> bool:
        """Do the places that were found account for every reference?"""
        # Besides them: `self.what`, the argument of `getrefcount`, and a bound method holds its object.
        places = len(self.setters) + len(self.methods) + 2
        return self.safe and sys.getrefcount(self.what) == places and all(each.all_found() for each in self.methods)

    def put(self, new: Any) -> None:
        for setter in self.setters:
            setter(new)
        for each in self.methods:
            each.put(getattr(new, each.what.__name__))

    def back(self, new: Any) -> None:
        """Undo, unless somebody uses the new one."""
        if not (isinstance(new, Lock | RLock) and new.locked()):
            self.put_back()

    def put_back(self) -> None:
        for setter in self.setters:
            setter(self.what)
        for each in self.methods:
            each.put_back()


def replace(journal: Journal) -> None:
    """Replace what can be replaced. Does nothing if other threads run."""
    if len(sys._current_frames()) > 1:
        return
    for held in survey():
        if not kept(held) and held.all_found() and (new := _MAKERS[type(held.what)](held.what)) is not None:
            held.put(new)
            journal.record(held.back, new)


def kept(held: _Held) -> bool:
    """Is it a lock of `threading` for its lists? They are taken while a loop is made, too, where nothing may wait."""
    return any(held.what is getattr(threading, name, None) for name in KEPT)


def survey() -> list[_Held]:
    """All objects of those types, with the places that hold them."""
    known: dict[int, _Held] = {id(each): _Held(each) for each in gc.get_objects() if type(each) in _MAKERS}
    objects = list(known.values())
    for method in gc.get_referrers(*[each.what for each in objects]):
        if type(method) is BuiltinMethodType and id(method.__self__) in known:
            bound = _Held(method)
            known[id(method.__self__)].methods.append(bound)
            known[id(method)] = bound
    del method
    holders = _holders(known)
    owners = _owners([holder for holder in holders if type(holder) is dict])
    done: set[tuple[int, Any]] = set()
    for holder in holders:
        _note(holder, owners.get(id(holder), holder), known, done)
    return objects


def _holders(known: dict[int, _Held]) -> list[Any]:
    asked = [each.what for each in known.values()]
    found = gc.get_referrers(*asked)
    return [each for each in found if not (type(each) is _Held or _is_bound(each, known) or _is_call(each, asked))]


def _is_call(holder: Any, asked: list[Any]) -> bool:
    """Is it the arguments of `get_referrers` themselves? (It finds them from CPython 3.13 on.) Or the list of them?"""
    return holder is asked or (type(holder) is tuple and len(holder) == len(asked) and holder[0] is asked[0])


def _is_bound(holder: Any, known: dict[int, _Held]) -> bool:
    return type(holder) is BuiltinMethodType and id(holder) in known


def _owners(dicts: list[dict[Any, Any]]) -> dict[int, Any]:
    """Whose `__dict__` these are: instances, classes, modules; by the id of the dict."""
    wanted = {id(each) for each in dicts}
    owners: dict[int, Any] = {}
    for each in gc.get_referrers(*dicts) if dicts else []:
        if isinstance(each, type):
            for referent in gc.get_referents(each):
                if id(referent) in wanted and type(referent) is dict:
                    owners[id(referent)] = each
        elif type(each) not in (dict, list, tuple):
            namespace = namespace_of(each)
            if id(namespace) in wanted:
                owners[id(namespace)] = each
    return owners


def namespace_of(thing: Any) -> Any:
    """Its `__dict__`, or None; without asking code of its own, as a proxy has it."""
    for kind in type(thing).__mro__:
        descriptor = vars(kind).get("__dict__")
        if type(descriptor) is GetSetDescriptorType:
            return descriptor.__get__(thing)
    return vars(thing) if isinstance(thing, ModuleType) else None


def _note(holder: Any, owner: Any, known: dict[int, _Held], done: set[tuple[int, Any]]) -> None:
    """Note where a holder has what. An instance and its `__dict__` may both come by, for the same places."""
    found = set()
    ours = _is_ours(owner)
    for place, value, setter in _places(holder, owner) if not ours else ():
        if (held := known.get(id(value))) is not None:
            found.add(id(value))
            if place not in done:
                done.add(place)
                held.setters.append(setter)
    for value in gc.get_referents(holder):
        if (held := known.get(id(value))) is not None:
            held.ours = held.ours or ours
            held.safe = held.safe and id(value) in found
            held.holders.append(_told(owner))


def _told(owner: Any) -> str:
    if isinstance(owner, ModuleType):
        return f"module {owner.__name__}"
    if isinstance(owner, type):
        return f"class {owner.__module__}.{owner.__qualname__}"
    kind = type(owner)
    return f"a {kind.__module__}.{kind.__qualname__}" if kind.__module__ != "builtins" else f"a {kind.__qualname__}"


def _is_ours(owner: Any) -> bool:
    if isinstance(owner, dict):
        return is_ours(str(owner.get("__name__", "")))
    if isinstance(owner, ModuleType):
        return is_ours(owner.__name__)
    kind = owner if isinstance(owner, type) else type(owner)
    return is_ours(str(kind.__module__))


def _places(holder: Any, owner: Any) -> Iterator[tuple[tuple[int, Any], Any, Setter]]:
    """The places in a holder that can be changed: what tells them from others, what is there, and how it is changed."""
    if isinstance(owner, type):
        for name, value in list(vars(owner).items()):
            yield (id(owner), name), value, partial(put, owner, name)
    elif type(holder) is dict or type(holder) is list:
        for key, value in list(holder.items() if type(holder) is dict else enumerate(holder)):
            yield (id(holder), key), value, partial(holder.__setitem__, key)
    elif type(holder) is CellType:
        yield (id(holder), None), holder.cell_contents, partial(setattr, holder, "cell_contents")
    elif not isinstance(holder, ModuleType | FunctionType):
        namespace = namespace_of(holder)
        if type(namespace) is dict:
            yield from _places(namespace, namespace)
        for kind in type(holder).__mro__:
            for slot in vars(kind).values():
                if type(slot) is MemberDescriptorType and slot.__objclass__ is kind and kind.__flags__ & _HEAP:
                    try:
                        yield (id(holder), id(slot)), slot.__get__(holder), partial(slot.__set__, holder)
                    except AttributeError:
                        pass  # not set


#: Py_TPFLAGS_HEAPTYPE: the slots of other types, in C, are not for us to change.
_HEAP: Final = 1 << 9
