"""A drop-in for the standard `subprocess` module whose calls suspend only the fiber that makes them.

    from fibers.io import subprocess

Everything the standard module exports is here, with its exceptions and its constants. How a child is started is the
standard module's own code. Replaced is what waits: for the child's end (children.py), for its pipes (pipeend.py,
pipefiles.py), for both (communicating.py). Several fibers and threads may do so for one child.

Starting a child blocks the thread, for about a millisecond. A worker thread would not help: `vfork` stops the whole
parent thread until the child has called `exec`, and CPython holds its global lock meanwhile. A `preexec_fn` that takes its
time takes everybody's.

What becomes of the child when the caller is cancelled. `run` and its kin have started it, so they kill it, wait for its end
under a shield (it has been killed: that is soon), close the pipes, and go on with Cancelled: what `timeout=` does, a
deadline of a scope further out does too. `wait()` and `communicate()` leave it alone; both can be called again, and
`communicate()` then goes on where it was. `with Popen(…)` waits for the child at its end, as ever; if that is cancelled the
child lives on, unless it was killed.

Differences. `communicate()` includes what a `readline()` has read ahead. `stdout` in text mode is no `io.TextIOWrapper`,
but has its methods for reading. Where a socket of `fibers.io.socket` is given to a child, that finds it non-blocking.
"""

# Names that the star brings in are defined again below: that is what a drop-in does.
# mypy: disable-error-code="no-redef, assignment, misc, call-overload"

import signal
import subprocess as std
from functools import wraps
from subprocess import *
from subprocess import list2cmdline  # noqa: F401 - public, but not starred
from types import TracebackType
from typing import Any, Final

from ..core.cancel import as_timeout, move_on_after, shield
from ..core.scheduler import get_scheduler
from ..errors import Cancelled
from ..eventloop import FOREVER
from . import children, communicating, pipeend, pipefiles

__all__ = [*std.__all__]

#: Seconds that a child which has been killed is waited for after Ctrl-C.
PATIENCE: Final = 0.25

# The methods of the standard class are called by these names, and not as those of a base: ours also work on the standard
# class, in their place.
_init: Final = std.Popen.__init__
_exit: Final = std.Popen.__exit__
_get_handles: Final = std.Popen._get_handles  # type: ignore[attr-defined]
_execute_child: Final = std.Popen._execute_child  # type: ignore[attr-defined]
_communicate: Final = std.Popen.communicate
_send_signal: Final = std.Popen.send_signal


class Popen(std.Popen[Any]):
    """As `subprocess.Popen`; waiting, reading and writing suspend the fiber. See the module's text."""

    _bufsize = -1
    _killed = False
    _thread_watch: children.ThreadWatch | None = None
    _outputs: dict[Any, list[Any]] | None = None  # what `communicate` has read

    @wraps(_init)
    def __init__(self, args: Any, bufsize: Any = -1, *more: Any, **named: Any) -> None:
        if isinstance(bufsize, int):
            self._bufsize = bufsize
        _init(self, args, bufsize, *more, **named)

    def _get_handles(self, *files: Any) -> Any:
        handles = _get_handles(self, *files)
        for fd in (handles[0], handles[3], handles[5]):
            if fd != -1:
                pipeend.lend(fd)
        return handles

    def _execute_child(self, *args: Any, **named: Any) -> None:
        _execute_child(self, *args, **named)
        for name in ("stdin", "stdout", "stderr"):
            file = getattr(self, name)
            if file is not None:
                setattr(self, name, pipefiles.taken_over(file, self._bufsize))

    def _wait(self, timeout: float | None) -> int:
        if self.returncode is None:
            scheduler = get_scheduler()
            deadline = FOREVER if timeout is None else scheduler.loop.clock() + timeout
            try:
                if not children.wait_for(self, deadline):
                    raise TimeoutExpired(self.args, timeout)  # type: ignore[arg-type]
            except TimeoutError as late:  # a deadline further out
                raise TimeoutExpired(self.args, timeout) from late  # type: ignore[arg-type]
            except Cancelled:
                self._surface(timeout)
                raise
        return self.returncode

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """As `subprocess.Popen.communicate`. What a call that was cut short has read, the next one returns."""
        if not communicating.ours(self):
            return _communicate(self, input, timeout)
        if self._communication_started and input:  # type: ignore[has-type]
            raise ValueError("Cannot send input after starting communication")
        if self._outputs is None:
            communicating.save_input(self, input)
        try:
            with move_on_after(None if timeout is None else max(timeout, 0)):
                communicating.exchange(self)
                self._wait(timeout=None)
                return communicating.result(self, self.stdout), communicating.result(self, self.stderr)
        except Cancelled:
            self._surface(timeout)
            raise
        except KeyboardInterrupt:
            # As the standard class: the child has most likely got it, too, and is given a moment to end.
            patience, self._sigint_wait_secs = self._sigint_wait_secs, 0.0  # type: ignore[has-type]
            try:
                self._wait(timeout=patience)
            except TimeoutExpired:
                pass
            raise
        finally:
            self._communication_started = True
        raise self._late(timeout)

    def send_signal(self, sig: int) -> None:
        """As `subprocess.Popen.send_signal`."""
        _send_signal(self, sig)
        if sig == signal.SIGKILL:
            self._killed = True

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._killed:
            _exit(self, kind, value, traceback)
            return
        # It ends at once. So nothing need keep us from reaping it, neither a cancellation nor a Ctrl-C, after which the
        # standard class does not wait.
        with shield():
            _exit(self, kind, value, traceback)
            if self.returncode is None:
                children.wait_for(self, get_scheduler().loop.clock() + PATIENCE)

    def _surface(self, timeout: float | None) -> None:
        """Cancelled: if that is by a deadline, and the call has a timeout of its own, it reports it as that; once."""
        me = get_scheduler().current
        error = None if timeout is None or me is None else as_timeout(me)
        if error is not None:
            try:
                raise self._late(timeout) from error
            finally:
                del error  # the traceback refers to this frame

    def _late(self, timeout: float | None) -> TimeoutExpired:
        if self._outputs is None:
            return TimeoutExpired(self.args, timeout)  # type: ignore[arg-type]
        output, errors = (communicating.so_far(self, file) for file in (self.stdout, self.stderr))
        return TimeoutExpired(self.args, timeout, output=output, stderr=errors)  # type: ignore[arg-type]


def run(
    *popenargs: Any,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **kwargs: Any,
) -> CompletedProcess[Any]:
    """As `subprocess.run`. If the caller is cancelled the child is killed and reaped, as with a timeout."""
    if input is not None:
        if kwargs.get("stdin") is not None:
            raise ValueError("stdin and input arguments may not both be used.")
        kwargs["stdin"] = PIPE
    if capture_output:
        if kwargs.get("stdout") is not None or kwargs.get("stderr") is not None:
            raise ValueError("stdout and stderr arguments may not be used with capture_output.")
        kwargs["stdout"] = kwargs["stderr"] = PIPE
    with Popen(*popenargs, **kwargs) as process:
        try:
            stdout, stderr = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise  # the end of the block waits for it
    completed: CompletedProcess[Any] = CompletedProcess(process.args, process.wait(), stdout, stderr)
    if check:
        completed.check_returncode()
    return completed


def call(*popenargs: Any, timeout: float | None = None, **kwargs: Any) -> int:
    """As `subprocess.call`. If the caller is cancelled the child is killed and reaped, as with a timeout."""
    with Popen(*popenargs, **kwargs) as process:
        try:
            return process.wait(timeout=timeout)
        except BaseException:
            process.kill()
            raise  # the end of the block waits for it


def check_call(*popenargs: Any, **kwargs: Any) -> int:
    """As `subprocess.check_call`, over `call`."""
    returncode = call(*popenargs, **kwargs)
    if returncode:
        command = kwargs.get("args")
        raise CalledProcessError(returncode, popenargs[0] if command is None else command)
    return 0


def check_output(*popenargs: Any, timeout: float | None = None, **kwargs: Any) -> Any:
    """As `subprocess.check_output`, over `run`."""
    for name in ("stdout", "check"):
        if name in kwargs:
            raise ValueError(f"{name} argument not allowed, it will be overridden.")
    if "input" in kwargs and kwargs["input"] is None:
        text = any(kwargs.get(name) for name in ("universal_newlines", "text", "encoding", "errors"))
        kwargs["input"] = "" if text else b""
    return run(*popenargs, stdout=PIPE, timeout=timeout, check=True, **kwargs).stdout


def getstatusoutput(cmd: Any, *, encoding: str | None = None, errors: str | None = None) -> tuple[int, str]:
    """As `subprocess.getstatusoutput`, over `check_output`."""
    try:
        data = check_output(cmd, shell=True, text=True, stderr=STDOUT, encoding=encoding, errors=errors)
        returncode = 0
    except CalledProcessError as error:
        data, returncode = error.output, error.returncode
    return returncode, data.removesuffix("\n")


def getoutput(cmd: Any, *, encoding: str | None = None, errors: str | None = None) -> str:
    """As `subprocess.getoutput`, over `check_output`."""
    return getstatusoutput(cmd, encoding=encoding, errors=errors)[1]
