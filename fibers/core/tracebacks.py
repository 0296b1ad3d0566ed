"""What is kept of the traceback of an error that ends a fiber.

A traceback holds the frames that it names, and a frame holds its locals. At its outer end are the frames of the carrier,
which lives on. At its inner end are often frames of this package, in which a call waited: they name the fiber, and the
fiber keeps its error. That would be a cycle for each fiber that was cancelled, left to the garbage collector; and it says
nothing to the reader, who knows what `sleep` and `recv` are. So both ends are taken off.

Not the inner end of an error of one of Python's own classes, but for OSError and groups: it may be a fault of this package.
"""

import os
from collections.abc import Container
from types import CodeType
from typing import Final

#: What the file names of this package begin with.
PACKAGE: Final = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
#: Errors that are looked at, of those that an error has come with.
_LONGEST_CHAIN: Final = 100


def trim(error: BaseException, own: Container[CodeType]) -> None:
    """Take the frames of `own` code off the outer end, and this package's off the inner end; of its contexts too."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code in own:
        traceback = traceback.tb_next
    error.__traceback__ = traceback
    pending: list[BaseException | None] = [error]
    for _ in range(_LONGEST_CHAIN):
        if not pending:
            break
        each = pending.pop()
        if each is None:
            continue
        if isinstance(each, BaseExceptionGroup):
            pending += each.exceptions
            _trim_inside(each)
        elif isinstance(each, OSError) or type(each).__module__ != "builtins":
            _trim_inside(each)
        pending.append(each.__cause__ or each.__context__)


def _trim_inside(error: BaseException) -> None:
    last = None
    traceback = error.__traceback__
    while traceback is not None:
        if not traceback.tb_frame.f_code.co_filename.startswith(PACKAGE):
            last = traceback
        traceback = traceback.tb_next
    if last is None:
        error.__traceback__ = None
    else:
        last.tb_next = None
