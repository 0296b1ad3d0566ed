"""eventlet.pools: a Pool of things that are dear to make, such as connections."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..gevent.queue import Channel


class Pool:
    """At most `max_size` things, made by `create` when they are needed, `min_size` of them at once.

    `order_as_stack`: what was put back last is taken first.
    """

    def __init__(
        self,
        min_size: int = 0,
        max_size: int = 4,
        order_as_stack: bool = False,
        create: Callable[[], Any] | None = None,
    ) -> None:
        if not 0 <= min_size <= max_size:
            raise ValueError(f"0 <= min_size <= max_size is needed, not {min_size} and {max_size}")
        self.min_size, self.max_size = min_size, max_size
        self.order_as_stack = order_as_stack
        self.current_size = 0
        self.channel = Channel()
        self.free_items: deque[Any] = deque()
        self._waiting = 0
        if create is not None:
            self.create = create  # type: ignore[method-assign]
        for _ in range(min_size):
            self.current_size += 1
            self.free_items.append(self.create())

    def create(self) -> Any:
        """Make one. For derived classes, or given to the constructor."""
        raise NotImplementedError("Implement in subclass")

    def get(self) -> Any:
        """Take one, made if there is none and there may be more; else wait for one."""
        if self.free_items:
            return self.free_items.popleft()
        if self.current_size < self.max_size:
            self.current_size += 1
            try:
                return self.create()
            except BaseException:
                self.current_size -= 1
                raise
        self._waiting += 1
        try:
            return self.channel.get()
        finally:
            self._waiting -= 1

    def put(self, item: Any) -> None:
        """Put one back."""
        if self.current_size > self.max_size:
            self.current_size -= 1
        elif self._waiting and self.channel._channel.try_send(item):
            return
        elif self.order_as_stack:
            self.free_items.appendleft(item)
        else:
            self.free_items.append(item)

    @contextmanager
    def item(self) -> Iterator[Any]:
        """A block that has one."""
        item = self.get()
        try:
            yield item
        finally:
            self.put(item)

    def resize(self, new_size: int) -> None:
        """Change `max_size`. Those above a smaller one are dropped as they are put back."""
        self.max_size = new_size

    def free(self) -> int:
        """How many can be taken without waiting."""
        return len(self.free_items) + self.max_size - self.current_size

    def waiting(self) -> int:
        """How many wait."""
        return self._waiting


__all__ = ["Pool"]
