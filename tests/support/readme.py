"""Reads the blocks of a Markdown file that say of themselves that they can be run.

An HTML comment directly above a fenced block marks it, and readers of the page never see the mark:

    <!-- run: echo-server -->       a program; the name of a server ends in `server`
    <!-- output: echo-client -->    what the program of that name prints, to the letter

Of `console` blocks every line that begins with `$ ` is a command.
"""

import re
from dataclasses import dataclass

_BLOCK = re.compile(
    r"^(?:<!-- (?P<verb>run|output): (?P<name>[\w-]+) -->\n+)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_PORT = re.compile(r"\b127\.0\.0\.1\b[\"']?[:,]\s*(\d+)")


@dataclass(frozen=True)
class Page:
    """The marked blocks of one page: programs and outputs by name, and console commands in order."""

    programs: dict[str, str]
    outputs: dict[str, str]
    commands: list[str]

    @property
    def servers(self) -> list[str]:
        return [name for name in self.programs if name.endswith("server")]

    @property
    def others(self) -> list[str]:
        return [name for name in self.programs if not name.endswith("server")]


def read(markdown: str) -> Page:
    """The page's blocks.

    Raises ValueError for a name used twice, an output without a program, and a mark without a block below.
    """
    page = Page({}, {}, [])
    for block in _BLOCK.finditer(markdown):
        verb, name, language, text = block["verb"], block["name"], block["language"], block["text"]
        if verb is not None:
            shelf = page.programs if verb == "run" else page.outputs
            if name in shelf:
                raise ValueError(f"two blocks are marked `{verb}: {name}`")
            if verb == "run" and language != "python":
                raise ValueError(f"the block marked `run: {name}` is {language or 'plain text'}, not python")
            shelf[name] = text
        elif language == "console":
            page.commands.extend(line[2:].strip() for line in text.splitlines() if line.startswith("$ "))
    marks = len(re.findall(r"^<!-- (?:run|output):", markdown, re.MULTILINE))
    if marks != len(page.programs) + len(page.outputs):
        raise ValueError(f"{marks} marks, but not as many blocks directly below one")
    for name in page.outputs:
        if name not in page.programs:
            raise ValueError(f"there is an output of {name}, but no such program")
    return page


def port_of(program: str) -> int:
    """The port on 127.0.0.1 that a program names. Raises ValueError if it names none, or several."""
    ports = {int(port) for port in _PORT.findall(program)}
    if len(ports) != 1:
        raise ValueError(f"the program names the ports {sorted(ports)} on 127.0.0.1, expected one")
    return ports.pop()
