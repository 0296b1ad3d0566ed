"""gevent.util: errors as return values, and what is going on."""

import sys
from collections.abc import Callable
from typing import Any, TextIO

from ...core.dump import dump, picture


class wrap_errors:  # noqa: N801 - as gevent calls it
    """`wrap_errors(errors, function)`: calls the function, and returns such an error in place of raising it."""

    def __init__(self, errors: Any, func: Callable[..., Any]) -> None:
        self._errors, self._func = errors, func

    @property
    def func(self) -> Callable[..., Any]:
        """The function."""
        return self._func

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._func(*args, **kwargs)
        except self._errors as error:
            return error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._func, name)


def format_run_info(thread_stacks: bool = True, greenlet_stacks: bool = True, limit: Any = None) -> list[str]:
    """All fibers, and where they wait, as lines."""
    return picture().splitlines()


def print_run_info(
    thread_stacks: bool = True, greenlet_stacks: bool = True, limit: Any = None, file: TextIO | None = None
) -> None:
    """Print that."""
    dump(file or sys.stderr)


__all__ = ["format_run_info", "print_run_info", "wrap_errors"]
