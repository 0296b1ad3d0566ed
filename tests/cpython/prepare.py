"""What CPython's helpers for tests assume of threads, and fibers are not.

* `threading_helper` compares the number of threads of the system before and after. A fiber is none, and the workers that
  fibers share (look-ups, `to_thread`) stay for the next one.
* `import_fresh_module("queue", …)` loads a second copy of a module beside the patched one. A copy "with C" is what a
  patched program has: the patched module itself. A copy "without C" is made as ever; it stands on patched locks.

Nothing else of the test suite is touched.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def neutralise() -> None:
    """Replace those helpers. After patching, and before a file of tests is imported, which copies them."""
    from fibers.patch.originals import STANDARD  # not at the top: a plain run must not have loaded the package

    import_helper: Any = importlib.import_module("test.support.import_helper")
    threading_helper: Any = importlib.import_module("test.support.threading_helper")
    threading_helper.threading_setup = lambda: (0, 0)
    threading_helper.threading_cleanup = lambda *original: None
    threading_helper.reap_threads = _as_it_is
    threading_helper.wait_threads_exit = _anyway
    fresh_module = import_helper.import_fresh_module

    def import_fresh_module(
        name: str, fresh: Sequence[str] = (), blocked: Sequence[str] = (), **more: Any
    ) -> ModuleType | None:
        if name in STANDARD and not blocked:
            return importlib.import_module(name)
        result: ModuleType | None = fresh_module(name, fresh, blocked, **more)
        return result

    import_helper.import_fresh_module = import_fresh_module


def _as_it_is(function: F) -> F:
    return function


@contextlib.contextmanager
def _anyway(timeout: float | None = None) -> Iterator[None]:
    yield
