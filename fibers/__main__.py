"""`python -m fibers COMMAND`: the command line.

Exit status: 0, or 1 if the command failed, or 2 if the command line is wrong. That of `run` is the program's.

`run` goes its own way before the other commands are imported: the program that it runs finds no more modules loaded than
it must.
"""

import argparse
import dataclasses
import io
import sys
from typing import Protocol

from .patch import program

if __name__ == "__main__" and sys.argv[1:2] == ["run"]:
    sys.exit(program.main())

from . import choice, info
from .backends import table
from .backends.conduct import compare
from .backends.figures import Plan
from .demo import conduct
from .http import command as http_command
from .measure.options import within
from .measure.progress import Progress
from .patch import startup


class _Command(Protocol):
    """A module that is one of the commands."""

    def add_arguments(self, parser: argparse.ArgumentParser, /) -> None: ...
    def run(self, options: argparse.Namespace, /) -> int: ...


def _info(options: argparse.Namespace) -> int:
    facts = info.collect()
    if not options.backends:
        print(info.as_json(facts) if options.json else info.as_text(facts))
        return 0
    progress = Progress(plain=False)
    asked = {name: value for name in ("rounds", "seconds") if (value := getattr(options, name)) is not None}
    try:
        comparison = compare(Plan(**asked), progress)
    except KeyboardInterrupt:
        progress.say("interrupted")
        return 1
    except (OSError, ValueError) as error:
        progress.say(f"the measurement failed: {error}")
        return 1
    if options.json:
        print(info.as_json({**facts, "measured": dataclasses.asdict(comparison)}))
    else:
        print(info.as_text(facts), table.text(comparison), sep="\n\n")
    return 1 if comparison.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fibers",
        description="Fibers: blocking-style code on an event loop that registers each file descriptor once.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    common = choice.option()

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[common], help=text, description=text.capitalize() + ".")

    command = add("info", "show the event loop in use, the others, and what they run on")
    command.add_argument("--json", action="store_true", help="print the same as JSON")
    command.add_argument(
        "--backends", action="store_true", help="measure what each event loop costs here, too (some 12 seconds)"
    )
    plan = Plan()
    command.add_argument(
        "--rounds",
        type=within(int, 1, 1000),
        metavar="N",
        help=f"of --backends, the loops taking turns ({plan.rounds})",
    )
    command.add_argument(
        "--seconds", type=within(float, 0.05, 60.0), metavar="S",
        help=f"of load on each loop in a round of --backends ({plan.seconds:g})",
    )  # fmt: skip
    command.set_defaults(run=_info)

    parts: list[tuple[str, str, _Command]] = [
        ("demo", "watch an echo server and its clients, and what each request costs", conduct),
        ("serve", "serve a WSGI application, or one of fibers.http, over HTTP", http_command),
        ("run", program.TEXT, program),
        ("pth", "have every interpreter of this environment look at FIBERS_PATCH", startup),
    ]
    for name, text, part in parts:
        command = add(name, text)
        part.add_arguments(command)
        command.set_defaults(run=part.run)
    return parser


def main() -> int:
    """Read sys.argv and do as it says."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without the sign for micro is no reason to fail
    parser = _parser()
    options = parser.parse_args()
    if options.command == "info" and not options.backends:
        for name in ("rounds", "seconds"):
            if getattr(options, name) is not None:
                parser.error(f"--{name} is for the measurement: info --backends --{name} …")
    if options.command is None:
        parser.print_help()
        return 0
    choice.obey(options)
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
