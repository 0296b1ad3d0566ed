"""Local: attributes of which every fiber has its own. After threading.local.

Values die with their fiber, and carriers are pooled; so values cannot hang on a greenlet or a thread. Each fiber that uses
a Local gets a *key*, an object that only the fiber holds and lets go of at its end. The values belong to the Local, under a
weak reference to that key. So they are gone with the fiber, and with the Local, at once; and a value that refers to its
Local is a cycle that the collector finds. They are looked up by the key's number, not by the reference: as the interpreter
ends the collector clears weak references, and only then come the finalisers, which may well ask for a value.

A thread has a key as well. It is that of its main fiber, so what was set before the thread had fibers is still there; and
code inside the runtime (done-callbacks, finalisers that strike there) sees the values of the main fiber. Greenlets that a
fiber makes for itself are a part of it, and share its values. A fiber starts with none, also if its spawner had some: for
values that are inherited there are context variables.
"""

from itertools import count
from typing import Any, Final, NoReturn
from weakref import ref

from .scheduler import state

_numbers: Final = count(1)


class _Key:
    """Stands for a fiber, or for a thread. Dies with it."""

    __slots__ = ("__weakref__", "number")

    def __init__(self) -> None:
        self.number: Final = next(_numbers)


class _Watch(ref[_Key]):
    """Knows whose values to let go."""

    __slots__ = ("number",)

    number: int


class _Store:
    """The values of one Local: a dict for each key, and what to initialise new ones with."""

    __slots__ = ("__weakref__", "_forget", "_watches", "args", "kwargs", "values")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args = args
        self.kwargs = kwargs
        self.values: dict[int, dict[str, Any]] = {}
        self._watches: dict[int, _Watch] = {}
        self._forget = _Forget(self)

    def add(self, key: _Key) -> dict[str, Any]:
        number = key.number
        self._watches[number] = watch = _Watch(key, self._forget)
        watch.number = number
        values: dict[str, Any] = {}
        self.values[number] = values
        return values

    def drop(self, number: int) -> None:
        self._watches.pop(number, None)
        self.values.pop(number, None)


class _Forget:
    """Called when a key has died. Does not keep the store alive."""

    __slots__ = ("_store",)

    def __init__(self, store: _Store) -> None:
        self._store = ref(store)

    def __call__(self, dead: Any) -> None:
        store = self._store()
        if store is not None:
            store.drop(dead.number)


def _key() -> _Key:
    """That of the calling fiber."""
    scheduler = state.scheduler
    me = None if scheduler is None else scheduler.current
    if me is None or me is scheduler.main:  # type: ignore[union-attr]
        if state.key is None:
            state.key = _Key()
        return state.key  # type: ignore[return-value]
    key = getattr(me, "_locals", None)
    if key is None:
        key = me._locals = _Key()
    return key


def _values(local: "Local") -> dict[str, Any]:
    """Those of the calling fiber. Its first use runs `__init__`."""
    store = _store_of(local)
    key = _key()
    values: dict[str, Any] | None = store.values.get(key.number)
    if values is None:
        values = store.add(key)
        initialise: Any = type(local).__init__
        if initialise is not object.__init__:
            try:
                initialise(local, *store.args, **store.kwargs)
            except BaseException:
                store.drop(key.number)
                raise
    return values


def _of_class(kind: type, name: str) -> Any:
    """The attribute of a class, as it stands there; None if it has none."""
    if hasattr(kind, name):
        for each in kind.__mro__:
            if name in each.__dict__:
                return each.__dict__[name]
    return None


class Local:
    """Attributes of which every fiber has its own; a plain thread, and its main fiber, too. As threading.local.

    May be derived from: `__init__` runs once in each fiber, with the arguments that the Local was made with; properties,
    methods and `__slots__` are shared by all. `__dict__` holds the values of the calling fiber. They are let go when the
    fiber ends. Any thread.
    """

    __slots__ = ("__weakref__", "_store")

    def __new__(cls, /, *args: Any, **kwargs: Any) -> "Local":
        if (args or kwargs) and cls.__init__ is object.__init__:
            raise TypeError("Initialization arguments are not supported: derive a class that has an __init__")
        self = object.__new__(cls)
        store = _Store(args, kwargs)
        _set_store(self, store)
        store.add(_key())  # `__init__` comes next, called by whoever makes this
        return self

    def __getattribute__(self, name: str) -> Any:
        values = _values(self)
        if name in values:
            found = _of_class(type(self), name)
            kind = type(found)
            if found is None or not (hasattr(kind, "__set__") or hasattr(kind, "__delete__")):
                return values[name]
        elif name == "__dict__":
            return values
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        values = _values(self)
        if name == "__dict__":
            raise AttributeError(f"{type(self).__name__!r} object attribute '__dict__' is read-only")
        found = _of_class(type(self), name)
        if found is not None and hasattr(type(found), "__set__"):
            object.__setattr__(self, name, value)
        else:
            values[name] = value

    def __delattr__(self, name: str) -> None:
        values = _values(self)
        if name == "__dict__":
            raise AttributeError(f"{type(self).__name__!r} object attribute '__dict__' is read-only")
        found = _of_class(type(self), name)
        if found is not None and hasattr(type(found), "__delete__"):
            object.__delattr__(self, name)
        elif name in values:
            del values[name]
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(f"cannot pickle or copy a {type(self).__name__}: each fiber has values of its own in it")


# Out of the way of attributes that are called the same.
_slot: Final[Any] = Local.__dict__["_store"]
type.__delattr__(Local, "_store")
_store_of: Final = _slot.__get__
_set_store: Final = _slot.__set__
