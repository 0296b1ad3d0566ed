"""The inbox of a loop: what other threads have posted, run in order, each once, whatever strikes.

Facts. CPython looks for signals when a Python function starts, after each call and at each jump back, and a handler may
raise there. A post whose function is struck when it starts has been taken out of the inbox and has done nothing: a
wake-up, a task from another thread, a close would be lost. The next handler may raise at the next opportunity, while
the first error is dealt with.

So no call stands between taking a post out and calling it, nor between its failure and putting it back, with the place
at which it failed. To find out whether it had begun takes calls; that is asked when it is its turn again, and as nothing
has been taken out then, the question may be struck, too, and is asked anew.
"""

from collections import deque
from collections.abc import Callable
from opcode import opmap
from types import TracebackType
from typing import Any, Final

#: A function and its arguments.
Post = tuple[Callable[..., None], tuple[Any, ...]]

#: The instruction at which CPython looks for signals when a function starts. What may come before it does nothing.
_RESUME: Final = opmap["RESUME"]


def run_posts(inbox: deque[Post]) -> None:
    """Run what is in an inbox now, in order. Raises what a post or a signal handler raises; the others stay in the inbox."""
    for _ in range(len(inbox)):
        post = inbox[0]
        if post[0] is _in_question:
            post, place = post[1]
            if has_begun(post[0], place):
                del inbox[0]
                continue
        try:
            del inbox[0]
            post[0](*post[1])
        except BaseException as error:
            traceback = error.__traceback__
            if traceback is not None and traceback.tb_next is not None:  # else it had returned
                inbox.appendleft((_in_question, (post, traceback.tb_next)))
            raise


def has_begun(function: Callable[..., None], place: TracebackType) -> bool:
    """A function has raised at `place`, as seen by its caller. False: it was struck at its first step, and did nothing."""
    ran = getattr(function, "ran", None)
    if ran is not None:  # it knows itself
        return bool(ran)
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is None or place.tb_frame.f_code is not code:
        return True
    return place.tb_lasti > code.co_code.index(_RESUME)


def throw(error: BaseException) -> None:
    """Raise an error. Posted to a loop, it makes a turn raise what could not come out of an earlier one."""
    raise error


def _in_question(post: Post, place: TracebackType) -> None:
    """Stands in the inbox for a post that has raised at `place`, and may not have begun."""
