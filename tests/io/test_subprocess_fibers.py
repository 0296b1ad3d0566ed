"""`fibers.io.subprocess` as fibers see it: only the caller waits; cancellation; what children inherit; faults."""

import errno
import inspect
import os
import resource
import signal
import subprocess as std
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.children import child_pids
from support.process import run_python
from support.scale import SEED, scaled
from support.settling import Oops, settle, started, waiting

import fibers.io.subprocess
from fibers.io import children

sp: Any = fibers.io.subprocess  # with the types of the standard module every pipe may be None


@pytest.fixture(autouse=True)
def _no_zombie() -> Iterator[None]:
    before = child_pids()
    yield
    assert child_pids() <= before


# -- only the caller waits ------------------------------------------------------------------------------------------


def test_signatures() -> None:
    for name in ("run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"):
        assert list(inspect.signature(getattr(sp, name)).parameters) == list(
            inspect.signature(getattr(std, name)).parameters
        )
    assert inspect.signature(sp.Popen) == inspect.signature(std.Popen)
    assert sp.Popen[bytes].__origin__ is sp.Popen


def test_children_need_each_other() -> None:
    """The first can end only because a fiber sees to the second, and so on: nobody blocks the thread."""
    with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE) as process:
        waits = started(process.wait)
        reads = started(process.stdout.read)
        talk = started(lambda: sp.run(["cat"], input=b"hello", stdout=sp.PIPE))
        assert talk.result(60).stdout == b"hello"
        assert waiting(waits) or not waits.done()
        process.stdin.write(b"bye")
        process.stdin.close()
        assert reads.result(60) == b"bye"
        assert waits.result(60) == 0


def test_64_children_at_once_lose_nothing() -> None:
    script = "import os, sys; d = sys.stdin.buffer.read(); os.write(2, d[:9]); sys.stdout.buffer.write(d * 2)"

    def one(number: int) -> None:
        data = bytes([number]) * 100_000
        command = ["sh", "-c", "head -c 9 >&2; cat; echo end"] if number % 8 else [sys.executable, "-Ssc", script]
        done = sp.run(command, input=data, capture_output=True)
        assert done.returncode == 0
        assert done.stderr == data[:9]
        assert done.stdout == (data[9:] + b"end\n" if number % 8 else data * 2)

    with fibers.TaskGroup() as group:
        for number in range(64):
            group.spawn(one, number)


def test_thousands_of_short_children() -> None:
    def some(count: int) -> int:
        return sum(sp.run(["sh", "-c", "echo $$; exit 7"], stdout=sp.PIPE).returncode for _ in range(count))

    each = scaled(500, least=5)
    assert sum(fiber.result() for fiber in [fibers.spawn(some, each) for _ in range(16)]) == 7 * 16 * each


def test_from_threads() -> None:
    """One child, awaited by fibers of two threads and by a thread without any."""
    with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE) as process:
        ended: list[int] = []
        thread = threading.Thread(target=lambda: ended.append(process.wait()))
        thread.start()
        with fibers.FiberThread() as other:
            far = [other.spawn(process.wait) for _ in range(3)]
            near = [started(process.wait) for _ in range(3)]
            moved = other.spawn(process.communicate, b"x" * 300_000)
            assert moved.result(60) == (b"x" * 300_000, None)
            assert [fiber.result(60) for fiber in far + near] == [0] * 6
        fibers.to_thread(thread.join)
        assert ended == [0]


def test_a_pipe_is_used_in_one_thread_after_the_other() -> None:
    with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE, text=True) as process:
        for line in ("a\n", "b\n", "c\n"):
            process.stdin.write(line)
            process.stdin.flush()
            read = process.stdout.readline
            assert (fibers.to_thread(read) if line == "b\n" else read()) == line
        process.stdin.close()


def test_not_inside_the_runtime() -> None:
    process = sp.Popen(["sleep", "60"])
    errors: list[BaseException] = []

    def callback(_: Any) -> None:
        try:
            process.wait()
        except RuntimeError as error:
            errors.append(error)

    fiber = fibers.spawn(int)
    fiber.add_done_callback(callback)
    fiber.join()
    settle()
    assert "inside the runtime" in str(errors.pop())
    process.kill()
    process.wait()


# -- cancellation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [
        lambda: sp.run("echo a; exec sleep 60", shell=True, capture_output=True),
        lambda: sp.run(["sleep", "60"], input=b"x" * 300_000),
        lambda: sp.call(["sleep", "60"]),
        lambda: sp.check_output(["sleep", "60"], input=b"x" * 300_000),
        lambda: sp.getoutput("exec sleep 60"),
    ],
    ids=["run", "feeding", "call", "check_output", "getoutput"],
)
@pytest.mark.parametrize("how", ["cancel", "kill", "deadline"])
def test_who_is_cancelled_in_run_leaves_no_child(act: Callable[[], Any], how: str) -> None:
    if how == "deadline":
        with pytest.raises(TimeoutError, match="not done within"):
            with fibers.timeout(0.03):
                act()
    else:
        fiber = started(act)
        assert not fiber.done()
        fiber.cancel() if how == "cancel" else fiber.kill(Oops())
        with pytest.raises(fibers.FiberCancelled if how == "cancel" else Oops):
            fiber.result(60)


def test_a_deadline_further_out_is_a_timeout_once() -> None:
    surfaced: list[Any] = []

    def twice(act: Callable[[], Any]) -> None:
        try:
            act()
        except sp.TimeoutExpired as error:
            surfaced.append(error)
        act()

    with pytest.raises(TimeoutError, match="not done within"):
        with fibers.timeout(0.03):
            twice(lambda: sp.run("echo a; exec sleep 60", shell=True, stdout=sp.PIPE, timeout=50))
    with sp.Popen(["sleep", "60"]) as process:
        with pytest.raises(TimeoutError, match="not done within"):
            with fibers.timeout(0.03):
                twice(lambda: process.wait(50))
        with pytest.raises(TimeoutError, match="not done within"):
            with fibers.timeout(0.01):
                twice(process.wait)
        process.kill()
    assert [error.timeout for error in surfaced] == [50, 50]
    assert surfaced[0].output == b"a\n"


def test_timeout_expired_may_leave_the_scope_bare() -> None:
    with pytest.raises(TimeoutError, match="not done within"):
        with fibers.timeout(0.03):
            sp.run("echo a; exec sleep 60", shell=True, stdout=sp.PIPE, stderr=sp.PIPE, timeout=50)
    with pytest.raises(sp.TimeoutExpired):
        with fibers.timeout(50):
            sp.run(["sleep", "60"], timeout=0.01)


def test_communicate_goes_on_where_it_was_cut_short() -> None:
    data = os.urandom(1 << 20)
    reading, writing = os.pipe()
    script = f"echo begun; echo begun >&2; cat; read line </proc/self/fd/{reading}; echo $line >&2"
    with sp.Popen(script, shell=True, stdin=sp.PIPE, stdout=sp.PIPE, stderr=sp.PIPE, pass_fds=[reading]) as process:
        os.close(reading)
        for number in range(6):
            talk = fibers.spawn(process.communicate, data if number == 0 else None)
            for _ in range(1 + number * 3):
                fibers.sleep(0.001)
            if number % 2:
                talk.cancel()
            else:
                talk.kill(Oops())
            with pytest.raises((fibers.FiberCancelled, Oops)):
                talk.result(60)
        os.write(writing, b"end\n")
        os.close(writing)
        out, err = process.communicate()
    assert err == b"begun\nend\n"
    assert out == b"begun\n" + data


def test_however_often_it_is_cut_short() -> None:
    random = Random(SEED)
    for _ in range(scaled(200, least=4)):
        data = random.randbytes(random.randrange(1 << 20))
        script = f"exec dd bs={random.randrange(1000, 100_000)} status=none"
        with sp.Popen(script + ";", shell=True, stdin=sp.PIPE, stdout=sp.PIPE, stderr=sp.PIPE) as process:
            given: bytes | None = data
            while True:
                try:
                    if random.random() < 0.5:
                        out, err = process.communicate(given, timeout=random.random() / 1000)
                        break
                    with fibers.move_on_after(random.random() / 1000):
                        out, err = process.communicate(given)
                        break
                except sp.TimeoutExpired as late:
                    seen = late.output or b""
                    if not data.startswith(seen):
                        pytest.fail(f"{len(seen)} bytes that are not those of the {len(data)}")
                given = None
            assert (out, err) == (data, b"")


def test_the_child_is_killed_in_the_middle() -> None:
    script = "cat; exec sleep 60"
    with sp.Popen(script, shell=True, stdin=sp.PIPE, stdout=sp.PIPE, stderr=sp.PIPE) as process:
        talk = started(process.communicate, b"x" * 50_000)
        other = started(process.wait)
        process.kill()
        out, err = talk.result(60)
        assert out == b"x" * len(out)
        assert err == b""
        assert other.result(60) == -signal.SIGKILL


def test_stdin_closed_before() -> None:
    with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE, stderr=sp.PIPE) as process:
        process.stdin.write(b"by hand")
        process.stdin.close()
        assert process.communicate() == (b"by hand", b"")
        assert process.communicate() == (b"by hand", b""), "as often as one likes"


def test_with_is_left_by_cancellation() -> None:
    """The child lives on, as documented; the pipes are closed."""
    seen: list[Any] = []

    def body() -> None:
        with sp.Popen(["sleep", "60"], stdin=sp.PIPE, stdout=sp.PIPE) as process:
            seen.append(process)
            process.stdout.read()

    fiber = started(body)
    fiber.cancel()
    with pytest.raises(fibers.FiberCancelled):
        fiber.result(60)
    process = seen.pop()
    assert process.stdout.closed
    assert process.poll() is None
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_ctrl_c() -> None:
    """The child of `run` gets a moment to end by itself, and is killed; main gets KeyboardInterrupt."""
    code = """if 1:
        import os, signal, sys
        import fibers
        from fibers.io import subprocess as sp
        def strike():
            fibers.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)
        fibers.spawn(strike)
        try:
            sp.run("echo started; exec sleep 60", shell=True, stdout=sp.PIPE, stderr=sp.PIPE)
        except KeyboardInterrupt:
            print("interrupted")
        fibers.spawn(strike)
        with sp.Popen(["sleep", "60"]) as process:
            try:
                process.wait()
            except KeyboardInterrupt:
                print("again", process.poll())
                process.kill()
        print(process.returncode)
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("none left")
    """
    done = run_python("-c", code)
    assert done.stdout == "interrupted\nagain None\n-9\nnone left\n", done.stderr


# -- reading and writing --------------------------------------------------------------------------------------------


def test_what_an_interrupted_read_has_read_comes_next() -> None:
    read: Callable[[Any], Any]
    options: dict[str, Any]
    for read, options in (
        (lambda f: f.read(100), {}),
        (lambda f: f.read(), {}),
        (lambda f: f.readline(), {}),
        (lambda f: f.readline(), {"text": True}),
        (lambda f: f.read(), {"text": True}),
        (lambda f: f.read(), {"bufsize": 0}),
        (lambda f: f.readline(), {"text": True, "bufsize": 0}),
    ):
        with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE, **options) as process:
            process.stdin.write("half" if options.get("text") else b"half")
            process.stdin.flush()
            with fibers.move_on_after(0.02):
                read(process.stdout)
            process.stdin.write(" and half\n" if options.get("text") else b" and half\n")
            process.stdin.close()
            with fibers.timeout(60):
                got = process.stdout.read()
            assert got == ("half and half\n" if options.get("text") else b"half and half\n")


def test_several_readers_get_whole_lines() -> None:
    with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE, encoding="utf-8") as process:
        readers = [started(process.stdout.readline) for _ in range(4)]
        for piece in ("a", "a\nb", "b\ncc", "\n", "dd\n"):
            process.stdin.write(piece)
            process.stdin.flush()
            settle()
        process.stdin.close()
        assert sorted(reader.result(60) for reader in readers) == ["aa\n", "bb\n", "cc\n", "dd\n"]


def test_several_writers() -> None:
    with sp.Popen(["sh", "-c", "sleep 0.05; cat"], stdin=sp.PIPE, stdout=sp.PIPE) as process:
        reader = started(process.stdout.read)
        writers = [started(process.stdin.write, letter * 200_000) for letter in (b"a", b"b", b"c")]
        for writer in writers:
            assert writer.result(60) == 200_000
        process.stdin.close()
        got = reader.result(60)
        assert got == b"a" * 200_000 + b"b" * 200_000 + b"c" * 200_000


@pytest.mark.parametrize("options", [{}, {"text": True}, {"bufsize": 0}], ids=str)
def test_close_wakes_who_reads(options: dict[str, Any]) -> None:
    with sp.Popen(["sleep", "60"], stdout=sp.PIPE, stdin=sp.PIPE, **options) as process:
        reader = started(process.stdout.read)
        process.stdout.close()
        with pytest.raises(OSError, match="closed") as caught:
            reader.result(60)
        assert caught.value.errno == errno.EBADF
        process.kill()


def test_what_an_interrupted_write_was_given_goes_out() -> None:
    gate, opener = os.pipe()
    script = f"read line </proc/self/fd/{gate}; exec cat"
    with sp.Popen(script, shell=True, stdin=sp.PIPE, stdout=sp.PIPE, pass_fds=[gate]) as process:
        os.close(gate)
        with fibers.move_on_after(0.02) as scope:
            process.stdin.write(b"x" * 300_000)
        assert scope.cancelled_caught
        os.write(opener, b"\n")
        os.close(opener)
        assert process.communicate() == (b"x" * 300_000, None)


def test_unflushed_and_collected() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        process = sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE)
        process.stdin.write(b"unflushed")
        process.stdin = None
        settle()
    assert process.communicate() == (b"unflushed", None)


# -- what children inherit ------------------------------------------------------------------------------------------


SHOW = "import os; print(*[os.get_blocking(fd) for fd in (0, 1, 2)])"


def test_the_ends_of_the_child_are_blocking() -> None:
    with sp.Popen([sys.executable, "-Ssc", SHOW], stdin=sp.PIPE, stdout=sp.PIPE, stderr=sp.PIPE) as process:
        assert process.communicate(b"")[0] == b"True True True\n"


@pytest.mark.parametrize("number", [False, True])
def test_our_end_is_blocking_for_the_child_that_gets_it(number: bool) -> None:
    with sp.Popen("echo one; echo two", shell=True, stdin=sp.PIPE, stdout=sp.PIPE, bufsize=0) as first:
        assert os.get_blocking(first.stdout.fileno())
        assert first.stdout.read(4) == b"one\n"
        assert not os.get_blocking(first.stdout.fileno())
        given = first.stdout.fileno() if number else first.stdout
        assert sp.check_output([sys.executable, "-Ssc", SHOW], stdin=given) == b"True True True\n"
        assert first.stdout.read() == b"two\n"
    with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE) as last:
        last.stdin.write(b"header\n")
        last.stdin.flush()
        sp.check_call(["head", "-c", "30000", "/dev/zero"], stdout=last.stdin)
        assert last.communicate(b"footer")[0] == b"header\n" + bytes(30_000) + b"footer"


def test_no_fd_of_the_loop_is_inherited() -> None:
    code = """if 1:
        import fibers
        from fibers.io import subprocess as sp
        with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE) as other:
            waits, reads = fibers.spawn(other.wait), fibers.spawn(other.stdout.read)
            fibers.sleep(0.001)
            print(sp.check_output(["ls", "/proc/self/fd"], close_fds=False, text=True).split())
            other.stdin.close()
            print(reads.result(), waits.result())
    """
    done = run_python("-c", code)
    assert done.stdout == "['0', '1', '2', '3']\nb'' 0\n", done.stderr  # 3 is ls's own look at the folder


def test_fork_in_the_parent_and_in_preexec_fn() -> None:
    code = """if 1:
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import fibers
        from fibers.io import subprocess as sp
        with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE) as process:
            waits, reads = fibers.spawn(process.wait), fibers.spawn(process.stdout.readline)
            fibers.sleep(0.01)
            pid = os.fork()
            if pid == 0:
                assert sp.check_output(["echo", "child"]) == b"child\\n"
                assert process.wait() == 0, "it is no child of this process"
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
            process.stdin.write(b"line\\n")
            process.stdin.flush()
            assert reads.result() == b"line\\n"
            assert sp.check_output(["echo", "x"], preexec_fn=lambda: fibers.sleep(0.01)) == b"x\\n"
            process.stdin.close()
            assert waits.result() == 0
        print("good")
    """
    done = run_python("-c", code)
    assert (done.stdout, done.stderr) == ("good\n", "")


def test_in_place() -> None:
    """Our methods work on the standard class, also for an object that was made before they were put there."""
    code = """if 1:
        import subprocess as std
        import fibers
        early = std.Popen(["cat"], stdin=std.PIPE, stdout=std.PIPE)
        from fibers.io import subprocess as sp
        for name, value in list(vars(sp.Popen).items()):
            if name not in ("__module__", "__doc__", "__dict__", "__weakref__", "__orig_bases__", "__parameters__"):
                setattr(std.Popen, name, value)
        ticks = []
        def tick():
            while True:
                fibers.sleep(0.001)
                ticks.append(1)
        fibers.spawn(tick)
        assert std.run("sleep 0.1; echo x; echo y >&2", shell=True, capture_output=True).stdout == b"x\\n"
        assert len(ticks) > 10, ticks
        assert early.communicate(b"early") == (b"early", None)
        try:
            with fibers.timeout(0.02):
                std.run(["sleep", "60"])
        except TimeoutError:
            pass
        else:
            raise AssertionError
        try:
            import os
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("good")
    """
    done = run_python("-c", code)
    assert (done.stdout, done.stderr) == ("good\n", "")


# -- faults ---------------------------------------------------------------------------------------------------------


def test_no_fd_left_in_the_middle() -> None:
    """For each number of fds that are left: it works, or it fails with EMFILE and leaves nothing."""
    low = max(map(int, os.listdir("/proc/self/fd"))) + 1
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ballast = []
    outcomes = []
    try:
        while (fd := os.open("/", os.O_RDONLY)) < low:
            ballast.append(fd)
        os.close(fd)
        for left in range(12):
            resource.setrlimit(resource.RLIMIT_NOFILE, (fd + left, hard))
            before = _open()
            try:
                done = sp.run(["cat"], input=b"data", stdout=sp.PIPE, stderr=sp.PIPE, timeout=60)
            except OSError as error:
                outcomes.append(error.errno)
            else:
                assert done.stdout == b"data"
                outcomes.append(0)
            fibers.sleep(0)
            assert _open() == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in ballast:
            os.close(fd)
    works = outcomes.index(0)
    assert 6 <= works <= 8, "three pipes, and one for the error of exec"
    assert outcomes == [errno.EMFILE] * works + [0] * (12 - works)


def _open() -> list[int]:
    found = []
    for fd in range(256):
        try:
            os.fstat(fd)
        except OSError:
            continue
        found.append(fd)
    return found


def _kqueue(pid: int) -> children.Fd:
    return children.open_kqueue(pid, StandIn)


class StandIn:
    """The part of `select` on a BSD that matters here, on a pidfd: an fd that is readable when the process has ended."""

    KQ_FILTER_PROC, KQ_EV_ADD, KQ_EV_ONESHOT, KQ_NOTE_EXIT = -5, 1, 16, 0x80000000

    class kevent:  # noqa: N801
        def __init__(self, ident: int, filter: int, flags: int, fflags: int) -> None:
            assert (filter, flags, fflags) == (-5, 17, 0x80000000)
            self.ident = ident

    class kqueue:  # noqa: N801
        def control(self, events: list[Any], count: int) -> None:
            assert count == 0
            (event,) = events
            if b"\nState:\tZ" in Path(f"/proc/{event.ident}/status").read_bytes():
                raise ProcessLookupError  # as a kqueue does
            self._fd = os.pidfd_open(event.ident)

        def fileno(self) -> int:
            return self._fd

        def close(self) -> None:
            if hasattr(self, "_fd"):
                os.close(self._fd)


def _refused(pid: int) -> children.Fd:
    raise OSError(errno.EMFILE, "no fd left")


@pytest.fixture(
    params=[
        (children.open_pidfd, True),
        (_kqueue, True),
        (None, True),
        (None, False),
        (_refused, True),
    ],
    ids=["pidfd", "kqueue", "thread", "clock", "refused"],
)
def watch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Each way to wait for a child."""
    monkeypatch.setattr(children, "opener", request.param[0])
    monkeypatch.setattr(children, "threads", request.param[1])
    return request.param


def test_the_best_way_is_chosen() -> None:
    assert children.opener is (children.open_pidfd if hasattr(os, "pidfd_open") else children.open_kqueue)


def test_each_way(watch: Any) -> None:
    assert sp.run(["sh", "-c", "exit 3"]).returncode == 3
    with sp.Popen(["cat"], stdin=sp.PIPE) as process:
        for _ in range(5):
            with pytest.raises(sp.TimeoutExpired):
                process.wait(0.002)
        waits = [started(process.wait) for _ in range(4)]
        timed = started(process.wait, 60)
        waits[1].cancel()
        waits[2].kill(Oops())
        with pytest.raises(fibers.FiberCancelled):
            waits[1].result(60)
        with pytest.raises(Oops):
            waits[2].result(60)
        assert len([t for t in threading.enumerate() if t.name == f"child {process.pid}"]) <= 1
        process.stdin.close()
        assert [waits[0].result(60), waits[3].result(60), timed.result(60)] == [0, 0, 0]
    with sp.Popen(["sleep", "60"]) as process:
        waits = [started(process.wait) for _ in range(2)]
        process.terminate()
        assert [fiber.result(60) for fiber in waits] == [-signal.SIGTERM] * 2
    results = fibers.gather(*[fibers.spawn(sp.call, ["sh", "-c", f"exit {n}"]) for n in range(16)])
    assert results == list(range(16))


def test_each_way_where_somebody_else_reaps(watch: Any) -> None:
    """A foreign SIGCHLD handler that reaps everything: the status is gone, and nobody hangs."""

    def reap(*_: Any) -> None:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass

    before = signal.signal(signal.SIGCHLD, reap)
    try:
        with fibers.TaskGroup() as group:
            codes = [group.spawn(sp.call, ["sh", "-c", "exit 7"]) for _ in range(16)]
        assert {fiber.result() for fiber in codes} <= {0, 7}
        with sp.Popen(["cat"], stdin=sp.PIPE) as process:
            waits = [started(process.wait) for _ in range(3)]
            process.stdin.close()
            assert {fiber.result(60) for fiber in waits} == {0}
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_each_way_where_sigchld_is_ignored(watch: Any) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with sp.Popen(["sh", "-c", "read line; exit 3"], stdin=sp.PIPE) as process:
            waits = [started(process.wait) for _ in range(3)]
            process.stdin.close()
            assert [fiber.result(60) for fiber in waits] == [0, 0, 0], "nobody can know"
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_handler_of_the_program_is_called_as_ever() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda number, _: seen.append(number))
    try:
        assert sp.run(["sh", "-c", "exit 3"]).returncode == 3
        assert signal.SIGCHLD in seen
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(children, "opener", None)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert sp.call(["sh", "-c", "sleep 0.01; exit 3"]) == 3
