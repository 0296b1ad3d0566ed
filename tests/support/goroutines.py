"""Running a test's fibers in one thread, each in a thread of its own, or spread over a few threads with many fibers each."""

import itertools
import threading
from collections.abc import Callable
from typing import Any, Final

import fibers

STYLES: Final = ("fibers", "threads", "spread")


class Go:
    """`go(fn, *args)` starts a function somewhere; `go.wait()` waits for all of them and raises what they raised.

    Use it as a context manager, which waits. In the style "fibers" they are fibers of the calling thread, in "threads"
    plain threads, in "spread" fibers of three other threads.
    """

    def __init__(self, style: str) -> None:
        self.style = style
        self.errors: list[BaseException] = []
        self.left = fibers.Channel[None](float("inf"))
        self.started = 0
        self.threads: list[threading.Thread] = []
        self.doors: list[fibers.Channel[Any]] = []
        self.turn = itertools.count()

    def __enter__(self) -> "Go":
        if self.style == "spread":
            for _ in range(3):
                door: fibers.Channel[Any] = fibers.Channel(float("inf"))
                self.doors.append(door)
                self._thread(fibers.run, self._serve, door)
        return self

    def __call__(self, fn: Callable[..., object], *args: Any) -> None:
        self.started += 1
        if self.style == "fibers":
            fibers.spawn(self._run, fn, *args)
        elif self.style == "threads":
            self._thread(self._run, fn, *args)
        else:
            self.doors[next(self.turn) % len(self.doors)].send((fn, *args))

    def wait(self) -> None:
        for _ in range(self.started):
            self.left.receive(60)
            if self.errors:
                break  # the others may wait for this one for ever
        self.started = 0
        if self.errors:
            raise self.errors[0]

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if error is None:
            self.wait()
        for door in self.doors:
            door.close()
        for thread in self.threads:
            thread.join(10 if error is None else 0.1)

    def _thread(self, fn: Callable[..., object], *args: Any) -> None:
        thread = threading.Thread(target=fn, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _serve(self, door: fibers.Channel[Any]) -> None:
        for call in door:
            fibers.spawn(self._run, *call)

    def _run(self, fn: Callable[..., object], *args: Any) -> None:
        try:
            fn(*args)
        except Exception as error:
            self.errors.append(error)
        finally:
            self.left.send(None)
