"""`fibers.io.subprocess` is `subprocess`: the same bodies run over both."""

import io
import os
import signal
import subprocess as std
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.children import child_pids

import fibers.io.subprocess

BIG = 1 << 20


@pytest.fixture(params=[std, fibers.io.subprocess], ids=["standard", "fibers"])
def sp(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_everything_is_there(sp: Any) -> None:
    for name in (*std.__all__, "list2cmdline"):
        assert hasattr(sp, name)
    assert sp.TimeoutExpired is std.TimeoutExpired
    assert sp.CalledProcessError is std.CalledProcessError
    assert sp.CompletedProcess is std.CompletedProcess
    assert issubclass(sp.Popen, std.Popen)
    assert (sp.PIPE, sp.STDOUT, sp.DEVNULL) == (-1, -2, -3)


def test_run(sp: Any) -> None:
    done = sp.run(["sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    assert repr(done).startswith("CompletedProcess(args=['sh', '-c'")
    with pytest.raises(std.CalledProcessError) as caught:
        sp.run("echo out; exit 4", shell=True, check=True, stdout=sp.PIPE, text=True)
    assert (caught.value.returncode, caught.value.output, caught.value.cmd) == (4, "out\n", "echo out; exit 4")
    assert sp.run(["cat"], input=b"abc", stdout=sp.PIPE).stdout == b"abc"
    assert sp.run(["cat"], input="a\r\nb\rc", stdout=sp.PIPE, text=True).stdout == "a\nb\nc"
    assert sp.run(["cat"], input="grün", stdout=sp.PIPE, encoding="utf-16").stdout == "grün"
    assert sp.run(["true"]).stdout is None


def test_call_and_its_kin(sp: Any) -> None:
    assert sp.call(["sh", "-c", "exit 5"]) == 5
    assert sp.check_call(["true"]) == 0
    with pytest.raises(std.CalledProcessError) as caught:
        sp.check_call(args=["false"])
    assert (caught.value.returncode, caught.value.cmd) == (1, ["false"])
    assert sp.check_output(["echo", "x"]) == b"x\n"
    assert sp.check_output(["cat"], input=None, text=True) == ""
    assert sp.check_output("echo x; echo y >&2", shell=True, stderr=sp.STDOUT, text=True) == "x\ny\n"
    with pytest.raises(std.CalledProcessError) as caught:
        sp.check_output("echo x; kill -9 $$", shell=True)
    assert (caught.value.returncode, caught.value.output) == (-9, b"x\n")
    assert "SIGKILL" in str(caught.value)
    assert sp.getoutput("echo a; echo b >&2; exit 2") == "a\nb"
    assert sp.getstatusoutput("echo a; exit 2") == (2, "a")


def test_bad_arguments(sp: Any) -> None:
    wrong: Callable[[], Any]
    error: type[Exception]
    for wrong, error in (
        (lambda: sp.check_output(["true"], stdout=1), ValueError),
        (lambda: sp.run(["true"], input=b"", stdin=sp.PIPE), ValueError),
        (lambda: sp.run(["true"], capture_output=True, stderr=sp.PIPE), ValueError),
        (lambda: sp.Popen(["true"], bufsize="big"), TypeError),
        (lambda: sp.Popen(["true"], pipesize="big"), TypeError),
        (lambda: sp.Popen(["true"], text=True, universal_newlines=False), std.SubprocessError),
        (lambda: sp.Popen(["true"], creationflags=1), ValueError),
        (lambda: sp.Popen(["true"], user=-2), ValueError),
        (lambda: sp.Popen([]), IndexError),
        (lambda: sp.Popen(["a\0b"]), ValueError),
    ):
        with pytest.raises(error):
            wrong()
    with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE) as process:
        with pytest.raises(TypeError):
            process.communicate("text", timeout=5)
        process.kill()


def test_what_cannot_be_started(sp: Any, tmp_path: Path) -> None:
    missing, plain, folder = tmp_path / "missing", tmp_path / "plain", tmp_path / "folder"
    plain.write_text("x")
    folder.mkdir()
    pipes: dict[str, int] = {"stdin": sp.PIPE, "stdout": sp.PIPE, "stderr": sp.PIPE}
    with pytest.raises(FileNotFoundError) as caught:
        sp.Popen([missing], **pipes)
    assert str(caught.value.filename) == str(missing)
    with pytest.raises(PermissionError) as refused:
        sp.Popen([plain], **pipes)
    assert str(refused.value.filename) == str(plain)
    with pytest.raises(FileNotFoundError) as elsewhere:
        sp.run(["true"], cwd=missing)
    assert str(elsewhere.value.filename) == str(missing)
    with pytest.raises(PermissionError):
        sp.run([folder])

    def fail() -> None:
        raise KeyError("no")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork
        with pytest.raises(std.SubprocessError, match="preexec_fn"):
            sp.Popen(["true"], preexec_fn=fail, **pipes)


@pytest.mark.parametrize(
    ("options", "script", "expected"),
    [
        ({"cwd": "/"}, "pwd", "/"),
        ({"env": {"COLOUR": "blue"}}, "echo $COLOUR", "blue"),
        ({"umask": 0o27}, "umask", "0027"),
        ({"start_new_session": True}, "ps -o sid= -p $$ | tr -d ' '; echo $$", None),
        ({"process_group": 0}, "ps -o pgid= -p $$ | tr -d ' '; echo $$", None),
        ({"executable": "/bin/echo"}, "x", "-c x"),
        ({"pipesize": 1 << 16}, "echo ok", "ok"),
        ({"bufsize": 0}, "echo ok", "ok"),
        ({"restore_signals": False, "close_fds": False}, "echo ok", "ok"),
    ],
    ids=str,
)
def test_options(sp: Any, options: dict[str, Any], script: str, expected: str | None) -> None:
    output = sp.run(["sh", "-c", script], stdout=sp.PIPE, text=True, **options).stdout
    if expected is None:
        first, second = output.split()
        assert first == second
    else:
        assert output == expected + "\n"


def test_pass_fds_and_nothing_else(sp: Any) -> None:
    reading, writing = os.pipe()
    try:
        fds = sp.check_output(["ls", "/proc/self/fd"], pass_fds=(writing,), text=True).split()
        assert sorted(map(int, fds)) == sorted({0, 1, 2, 3, writing}), "3 is ls's own look at the folder"
        sp.check_call(["sh", "-c", f"echo through >/proc/self/fd/{writing}"], pass_fds=[writing])
        assert os.read(reading, 100) == b"through\n"
        with pytest.warns(RuntimeWarning, match="overriding close_fds"):
            sp.check_call(["true"], pass_fds=[writing], close_fds=False)
    finally:
        os.close(reading)
        os.close(writing)


def test_preexec_fn(sp: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert sp.check_output(["sh", "-c", "echo $$; ps -o pgid= -p $$"], preexec_fn=os.setpgrp).split()[0]


def test_file_objects(sp: Any) -> None:
    with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE, stderr=sp.PIPE) as process:
        files: list[Any] = [process.stdin, process.stdout, process.stderr]
        assert all(isinstance(file, io.BufferedIOBase) for file in files)
        for file in files:
            assert not file.closed
            assert not file.isatty()
            assert file.name == file.fileno()
            assert not file.seekable()
        assert process.stdin.writable()
        assert process.stdout.readable()
        assert process.stdin.write(b"one\ntwo\nthree\nfour\nfive") == 23
        process.stdin.flush()
        process.stdin.close()
        process.stdin.close()
        assert process.stdout.readline(2) == b"on"
        assert process.stdout.readline() == b"e\n"
        assert process.stdout.peek()[:2] == b"tw"
        assert process.stdout.read1(4) == b"two\n"
        buffer = bytearray(3)
        assert process.stdout.readinto(buffer) == 3
        assert buffer == b"thr"
        assert next(process.stdout) == b"ee\n"
        assert process.stdout.readlines() == [b"four\n", b"five"]
        assert process.stdout.read() == b""
        assert process.stderr.read(10) == b""
        with pytest.raises(ValueError, match="closed file"):
            process.stdin.write(b"x")
        with pytest.raises((io.UnsupportedOperation, AttributeError)):
            process.stdout.write(b"x")
    with pytest.raises(ValueError, match="closed file"):
        process.stdout.read()
    assert process.returncode == 0


def test_text_objects(sp: Any) -> None:
    with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE, encoding="utf-8", errors="replace", bufsize=1) as process:
        process.stdin.write("grüße\n")
        assert process.stdout.readline() == "grüße\n"
        process.stdin.buffer.write(b"a\r\nb\rc\xffd\n")
        process.stdin.writelines(["eins\n", "zwei"])
        process.stdin.close()
        assert process.stdout.read(3) == "a\nb"
        assert process.stdout.readline(1) == "\n"
        assert list(process.stdout) == ["c\ufffdd\n", "eins\n", "zwei"]
        assert (process.stdout.encoding, process.stdout.errors) == ("utf-8", "replace")
        assert process.stdout.newlines is not None
        assert process.stdout.read() == ""


def test_unbuffered(sp: Any) -> None:
    with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE, bufsize=0) as process:
        assert isinstance(process.stdout, io.RawIOBase)
        assert process.stdin.write(b"x" * 1000) == 1000
        assert process.stdout.read(3) == b"xxx"
        process.stdin.close()
        assert process.stdout.read() == b"x" * 997


def test_communicate_both_ways_at_once(sp: Any) -> None:
    script = "import sys, os; d = sys.stdin.buffer.read(1 << 18)\nfor i in range(16): os.write(1, d); os.write(2, d)"
    data = os.urandom(1 << 18)
    with sp.Popen([sys.executable, "-Ssc", script], stdin=sp.PIPE, stdout=sp.PIPE, stderr=sp.PIPE) as process:
        out, err = process.communicate(data)
    assert out == data * 16
    assert err == data * 16
    with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE) as process:
        assert process.communicate(b"x" * BIG) == (b"x" * BIG, None)
        with pytest.raises(ValueError, match="Cannot send input"):
            process.communicate(b"more")


def test_communicate_with_a_timeout_and_again(sp: Any) -> None:
    with sp.Popen(["sh", "-c", "echo begun; cat; echo done"], stdin=sp.PIPE, stdout=sp.PIPE) as process:
        feeder, hold = os.pipe()
        with sp.Popen(["sh", "-c", "echo a; cat"], stdin=feeder, stdout=sp.PIPE) as slow:
            os.close(feeder)
            with pytest.raises(std.TimeoutExpired) as caught:
                slow.communicate(timeout=0.15)
            assert caught.value.output == b"a\n"
            assert (caught.value.cmd, caught.value.timeout) == (slow.args, 0.15)
            assert "timed out after 0.15 seconds" in str(caught.value)
            os.write(hold, b"b\n")
            os.close(hold)
            assert slow.communicate(timeout=60) == (b"a\nb\n", None)
        assert process.communicate(b"x" * BIG, timeout=60) == (b"begun\n" + b"x" * BIG + b"done\n", None)


def test_a_child_that_does_not_read(sp: Any) -> None:
    assert sp.run(["true"], input=b"x" * BIG).returncode == 0
    with sp.Popen("exec <&-; echo closed", shell=True, stdin=sp.PIPE, stdout=sp.PIPE) as process:
        assert process.communicate(b"x" * BIG) == (b"closed\n", None)
    with sp.Popen(["true"], stdin=sp.PIPE) as process:
        process.wait()
        process.stdin.write(b"x")
        with pytest.raises(BrokenPipeError):
            process.stdin.flush()
        with pytest.raises(BrokenPipeError):
            process.stdin.close()
        assert process.stdin.closed


def test_run_with_a_timeout(sp: Any) -> None:
    before = child_pids()
    with pytest.raises(std.TimeoutExpired) as caught:
        sp.run("echo a; exec sleep 60", shell=True, stdout=sp.PIPE, timeout=0.15)
    assert caught.value.stdout == b"a\n"
    with pytest.raises(std.TimeoutExpired):
        sp.call(["sleep", "60"], timeout=0)
    with pytest.raises(std.TimeoutExpired):
        sp.check_output(["sleep", "60"], timeout=0.01)
    assert child_pids() <= before


def test_wait_poll_and_signals(sp: Any) -> None:
    with sp.Popen(["sleep", "60"]) as process:
        assert process.poll() is None
        for timeout in (0, -1, 0.01):
            with pytest.raises(std.TimeoutExpired):
                process.wait(timeout)
        process.send_signal(signal.SIGSTOP)
        assert process.poll() is None
        process.terminate()
        process.send_signal(signal.SIGCONT)
        assert process.wait() == process.wait(timeout=0) == process.poll() == -signal.SIGTERM
        process.kill()  # nothing happens
        assert "returncode: -15" in repr(process)


def test_redirections(sp: Any, tmp_path: Path) -> None:
    with open(tmp_path / "out", "w+b") as out:
        sp.check_call("echo a; echo b >&2", shell=True, stdout=out, stderr=sp.STDOUT)
        out.seek(0)
        assert out.read() == b"a\nb\n"
        out.seek(0)
        assert sp.check_output(["cat"], stdin=out.fileno()) == b"a\nb\n"
    assert sp.check_output(["cat"], stdin=sp.DEVNULL) == b""
    assert sp.run(["echo"], stdout=sp.DEVNULL, stderr=sp.DEVNULL).returncode == 0


def test_a_pipeline(sp: Any) -> None:
    with sp.Popen(["sh", "-c", "echo b; echo c; echo a"], stdout=sp.PIPE) as first:
        with sp.Popen(["sort"], stdin=first.stdout, stdout=sp.PIPE) as second:
            first.stdout.close()
            assert second.communicate()[0] == b"a\nb\nc\n"


def test_a_warning_for_what_is_left_behind(sp: Any) -> None:
    process = sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE)
    pid, fds = process.pid, (process.stdin.fileno(), process.stdout.fileno())
    texts: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # (A list of the warnings would keep what they are about.)
        warnings.showwarning = lambda message, *_, **__: texts.append(str(message))
        del process  # the module keeps it until its child has ended
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        sp.call(["true"])
    texts.sort()
    assert texts[0] == f"subprocess {pid} is still running"
    assert [text for text in texts if text.startswith("unclosed file")] == texts[1:]
    assert len(texts) == 3
    fibers.sleep(0)
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _ignoring(act: Callable[[], None]) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        act()
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_sigchld_ignored(sp: Any) -> None:
    def act() -> None:
        assert sp.run(["sh", "-c", "exit 3"]).returncode == 0, "nobody can know"
        with sp.Popen(["false"]) as process:
            assert process.wait() == 0
        assert sp.check_output(["echo", "x"], timeout=60) == b"x\n"

    _ignoring(act)


def test_reaped_by_somebody_else(sp: Any) -> None:
    with sp.Popen(["false"]) as process:
        os.waitpid(process.pid, 0)
        assert process.wait() == 0
    with sp.Popen(["false"]) as process:
        os.waitpid(-1, 0)
        assert process.poll() == 0
        process.kill()
