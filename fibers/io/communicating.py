"""What `Popen.communicate` does: feed a child and gather what it prints, all at once.

Facts, and what follows:

* A child may print before it has read, on two pipes, in any order. So each pipe has a fiber of its own, and none waits for
  another. One of them is the caller's: a child with one pipe costs no fiber.
* A call may be cut short, by its timeout or by anything else, and be made again. So what has been read is in the Popen as
  soon as it has been read, how much has been written is counted there, and the fibers have nothing of their own.
* Where the standard library reads past the buffers of `stdout` and `stderr`, so that after a `readline()` some output is
  missing, what these objects have not handed out comes first here.
* A child need not read its input. A broken pipe is no error.
"""

from collections.abc import Callable
from typing import Any

from ..core.cancel import unsurface
from ..core.scheduler import get_scheduler
from ..errors import Cancelled
from ..groups.group import TaskGroup
from .pipeend import CHUNK, PipeEnd
from .pipefiles import PipeReader, TextReader, end_of


def ours(popen: Any) -> bool:
    """Are all pipes of a Popen file objects of ours? (Else it was made by the standard class.)"""
    return all(file is None or end_of(file) is not None for file in (popen.stdin, popen.stdout, popen.stderr))


def save_input(popen: Any, data: Any) -> None:
    """Take what is to be written, at the first call. Raises TypeError if it is not of the kind that the pipe takes."""
    popen._outputs = {}
    popen._input_offset = 0
    for file in (popen.stdout, popen.stderr):
        if file is not None:
            popen._outputs[file] = []
    popen._input = data
    if popen.stdin is None or not data:
        popen._input = b""
    elif popen.text_mode:
        if not isinstance(data, str):
            raise TypeError(f"input must be str, not {type(data).__name__}: this Popen is in text mode")
        popen._input = data.encode(popen.stdin.encoding, popen.stdin.errors)
    else:
        popen._input = memoryview(data).cast("B")


def exchange(popen: Any) -> None:
    """Write what is still to be written, and read both outputs to their ends. Each pipe is closed when it is done.

    Raises what cancellation and kill have for the fiber, and OSError of the pipes.
    """
    errors: list[OSError] = []
    pumps: list[tuple[Callable[..., None], Any]] = []
    if popen.stdin is not None and not popen.stdin.closed:
        pumps.append((_feed, popen.stdin))
    for file in popen._outputs:
        if not file.closed:
            pumps.append((_gather, file))
    if len(pumps) > 1:
        try:
            with TaskGroup("communicate") as group:
                for pump, file in pumps[1:]:
                    group.spawn(_pump, pump, popen, file, errors)
                _pump(pumps[0][0], popen, pumps[0][1], errors)
        except BaseExceptionGroup as gathered:
            if len(gathered.exceptions) > 1:
                raise
            raise gathered.exceptions[0] from None
    elif pumps:
        _pump(pumps[0][0], popen, pumps[0][1], errors)
    if errors:
        try:
            raise errors[0]
        finally:
            errors.clear()  # the traceback refers to this frame


def result(popen: Any, file: Any) -> Any:
    """All that a child has printed there, once everything has been read; None: it was not to be read."""
    if file is None:
        return None
    chunks = popen._outputs[file]
    if len(chunks) != 1 or not isinstance(chunks[0], str):
        whole = b"".join(chunks)
        popen._outputs[file] = chunks = [file.finish(whole) if isinstance(file, TextReader) else whole]
    return chunks[0]


def so_far(popen: Any, file: Any) -> bytes | None:
    """What has been read, as bytes also in text mode, as TimeoutExpired has it; None: nothing."""
    chunks = popen._outputs.get(file, ())
    return b"".join(chunk.encode() if isinstance(chunk, str) else chunk for chunk in chunks) or None


def _pump(pump: Callable[..., None], popen: Any, file: Any, errors: list[OSError]) -> None:
    scheduler = get_scheduler()
    me = scheduler.current
    assert me is not None
    try:
        pump(popen, file)
    except TimeoutError as error:
        # A deadline has surfaced as that of a read. It is that of the whole call, which will say so.
        unsurface(me, error)
        scheduler.check_interrupt(me)
        raise Cancelled("communicate was cut short by a deadline") from None
    except OSError as error:
        errors.append(error)


def _gather(popen: Any, file: Any) -> None:
    end = _end(file)
    chunks = popen._outputs[file]
    binary = file.buffer if isinstance(file, TextReader) else file
    if isinstance(binary, PipeReader) and (rest := binary.take(-1)):
        chunks.append(rest)
    while got := end.receive(CHUNK):
        chunks.append(got)
    file.close()


def _feed(popen: Any, file: Any) -> None:
    end = _end(file)
    try:
        file.flush()
        data = popen._input
        while popen._input_offset < len(data):
            popen._input_offset += end.send(data[popen._input_offset : popen._input_offset + CHUNK])
    except BrokenPipeError:
        pass
    try:
        file.close()
    except BrokenPipeError:
        pass


def _end(file: Any) -> PipeEnd:
    end = end_of(file)
    assert end is not None
    return end
