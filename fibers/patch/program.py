"""`python -m fibers run script.py`: a program as the plain interpreter runs it, but patched first.

The program is `__main__`, with the arguments, the module search path, the exit status and the tracebacks that it would have
without us. What it raises is shown here, without the frames that are ours, and then passed on to the interpreter with a hook
that shows nothing: so Ctrl-C ends the process by its signal, and the status is the interpreter's own.
"""

import argparse
import builtins
import io
import os
import pkgutil
import runpy
import sys
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Any, Final, NoReturn

from .. import choice
from .applying import patch_all, verify
from .table import ALIASES, GROUPS

TEXT: Final = "run a program written for threads on fibers: patch the standard library first"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    command.add_argument(
        "--no-patch", action="append", default=[], metavar="NAME", choices=[*GROUPS, *ALIASES],
        help=f"leave a part of the standard library alone: {', '.join(GROUPS)}; may be given several times",
    )  # fmt: skip
    command.add_argument(
        "--verify", action="store_true", help="say on the standard error what still holds on to what was replaced"
    )
    command.add_argument(
        "-m", dest="module", nargs=argparse.REMAINDER, metavar=("MODULE", "ARGUMENT"), help="run a module, as python -m"
    )
    command.add_argument("program", nargs=argparse.REMAINDER, metavar="SCRIPT [ARGUMENT …]", help="run a script")


def main() -> int:
    """`python -m fibers run …`, without the other commands."""
    parser = argparse.ArgumentParser(
        prog="python -m fibers run", description=TEXT.capitalize() + ".", parents=[choice.option()]
    )
    add_arguments(parser)
    options = parser.parse_args(sys.argv[2:])
    choice.obey(options)
    return run(options)


def run(options: argparse.Namespace) -> int:
    """The command itself. Returns only if the command line is wrong; else it raises what the program raises."""
    if bool(options.module) == bool(options.program):
        print("python -m fibers run: a script is needed, or -m and a module", file=sys.stderr)
        return 2
    main = ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, __file__=None, __cached__=None)
    sys.modules["__main__"] = main
    try:
        patch_all(**dict.fromkeys(options.no_patch, False))
        if options.verify:
            for escaped in verify():
                print(f"python -m fibers run: escaped: {escaped}", file=sys.stderr)
        if options.module:
            sys.argv[:] = options.module
            runpy._run_module_as_main(options.module[0])  # type: ignore[attr-defined]
        else:
            sys.argv[:] = options.program
            _run_script(options.program[0], main)
    except SystemExit:
        raise
    except BaseException as error:
        _show(error)
    return 0


def _run_script(path: str, main: ModuleType) -> None:
    if pkgutil.get_importer(path) is not None and _has_main(path):
        _set_path(os.path.abspath(path))
        runpy._run_module_as_main("__main__", alter_argv=False)  # type: ignore[attr-defined]
        return
    _set_path(os.path.dirname(os.path.realpath(path)))
    main.__dict__.update(
        __file__=os.path.abspath(path), __loader__=SourceFileLoader("__main__", path), __annotations__={}
    )
    exec(_code(path), main.__dict__)


def _has_main(path: str) -> bool:
    return os.path.isdir(path) or not path.endswith((".py", ".pyc"))


def _set_path(folder: str) -> None:
    if not sys.flags.safe_path:
        sys.path[0] = folder


def _code(path: str) -> CodeType:
    full = os.path.abspath(path)
    try:
        with io.open_code(full) as file:
            code: CodeType | None = pkgutil.read_code(file)
        if code is not None:
            return code
        with io.open_code(full) as file:
            source = file.read()
    except OSError as error:
        print(f"{sys.executable}: can't open file {full!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    return compile(source, full, "exec", dont_inherit=True)


def _show(error: BaseException) -> NoReturn:
    """Show an error as the interpreter would, and end as it would."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    error.__traceback__ = traceback
    sys.excepthook(type(error), error, traceback)
    sys.excepthook = _nothing
    raise error


def _nothing(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> Any:
    """It has been shown."""
