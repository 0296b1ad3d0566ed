"""eventlet.tpool: calls in native threads, for what can only block."""

from collections.abc import Callable, Iterator
from typing import Any, Final, Self

from ...threads.limiter import CapacityLimiter
from ...threads.to_thread import to_thread

_limiter: Final = CapacityLimiter(20)


def execute(meth: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function in a native thread, and wait for it."""
    return to_thread(lambda: meth(*args, **kwargs), limiter=_limiter)


def set_num_threads(nthreads: int) -> None:
    """How many calls run at once."""
    _limiter.total_tokens = nthreads


def killall() -> None:
    """Nothing to do: idle threads end by themselves."""


class Proxy:
    """An object whose methods are called in native threads.

    What they return is a Proxy as well if it is of one of the types `autowrap`, or the method is in `autowrap_names`.
    """

    def __init__(self, obj: Any, autowrap: tuple[type, ...] = (), autowrap_names: tuple[str, ...] = ()) -> None:
        self._obj, self._autowrap, self._autowrap_names = obj, tuple(autowrap), tuple(autowrap_names)

    def _wrapped(self, value: Any, name: str) -> Any:
        if isinstance(value, self._autowrap) or name in self._autowrap_names:
            return Proxy(value, self._autowrap, self._autowrap_names)
        return value

    def _execute(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self._wrapped(execute(function, *args, **kwargs), name)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._obj, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._execute(name, value, *args, **kwargs)

        return call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._execute("__call__", self._obj, *args, **kwargs)

    def __enter__(self) -> Any:
        return self._execute("__enter__", self._obj.__enter__)

    def __exit__(self, *error: Any) -> Any:
        return execute(self._obj.__exit__, *error)

    def __getitem__(self, key: Any) -> Any:
        return self._execute("__getitem__", self._obj.__getitem__, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        execute(self._obj.__setitem__, key, value)

    def __delitem__(self, key: Any) -> None:
        execute(self._obj.__delitem__, key)

    def __len__(self) -> int:
        return len(self._obj)

    def __bool__(self) -> bool:
        return bool(self._obj)

    def __iter__(self) -> Iterator[Any]:
        return _Items(self._execute("__iter__", iter, self._obj))

    def __repr__(self) -> str:
        return repr(self._obj)

    def __str__(self) -> str:
        return str(self._obj)

    def __eq__(self, other: object) -> bool:
        return bool(self._obj == other)

    def __hash__(self) -> int:
        return hash(self._obj)


class _Items:
    """An iterator whose steps are taken in native threads."""

    def __init__(self, items: Any) -> None:
        self._items = items

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        item = execute(next, self._items, _Items)
        if item is _Items:
            raise StopIteration
        return item


__all__ = ["Proxy", "execute", "killall", "set_num_threads"]
