"""gevent.local: attributes of which every fiber has its own."""

from typing import Self

from ...core.local import Local, _store_of


class local(Local):  # noqa: N801 - as gevent calls it
    """As threading.local, for fibers. `copy.copy` makes one with the values that the calling fiber has in this one."""

    __slots__ = ()

    def __copy__(self) -> Self:
        store = _store_of(self)
        made = type(self)(*store.args, **store.kwargs)
        made.__dict__.update(self.__dict__)
        return made


__all__ = ["local"]
