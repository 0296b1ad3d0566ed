"""The checker behind the import law: it reads a source tree, imports nothing of it, and lists offences as
sentences.

Facts. Python runs a package's `__init__` before any of its modules, so that order is not the author's choice
and is not judged; what a file *names* in an import statement is. `from package import name` names the module
`package.name` if there is one, else the package itself. An import inside a function, under `TYPE_CHECKING` or
through `importlib` is an arrow like any other; those hidden in functions or behind `importlib` are what
cycles are dodged with, so they need a reason on record. A reason that nobody needs any more is an offence
too, or the record would rot.
"""

import ast
import fnmatch
import io
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FACE = "__init__"


@dataclass(frozen=True)
class Floor:
    """A row of the law: files in the order in which they may import one another, as paths without `.py`.

    `*` stands for any name within one folder; the files that it stands for are equals and do not import
    each other. A literal entry wins over a pattern.
    """

    number: int
    name: str
    files: Sequence[str]
    third_party: Sequence[str] = ()

    def __str__(self) -> str:
        return f"floor {self.number} {self.name}".rstrip()


@dataclass(frozen=True)
class Law:
    """The floors from the ground up, and the few exceptions, each with its reason."""

    package: str
    floors: Sequence[Floor]
    face_may_import: Sequence[str]
    deferred: Mapping[tuple[str, str], str] = field(default_factory=dict)
    table: str = "the table of this test"

    def place(self, module: str) -> tuple[int, Floor] | None:
        """The rank of a file in the building and its floor, or None if the table does not know it."""
        rows = [(floor, entry) for floor in self.floors for entry in floor.files]
        exact = [rank for rank, (_, entry) in enumerate(rows) if entry == module]
        close = [rank for rank, (_, entry) in enumerate(rows) if _matches(module, entry)]
        for rank in exact + close:
            return rank, rows[rank][0]
        return None


@dataclass(frozen=True)
class Arrow:
    """One import: the line it stands on, the dotted module it names, the function it hides in, if any."""

    line: int
    target: str
    inside: str | None


class Tree:
    """The sources of one package, addressed as the law addresses them (`eventloop/clock`, `__init__`)."""

    def __init__(self, root: Path, law: Law) -> None:
        self.root = root
        self.law = law
        self.sources = {
            str(path.relative_to(root).with_suffix("")): path.read_text("utf-8") for path in sorted(root.rglob("*.py"))
        }

    # -- the rules, each a list of sentences

    def unlisted(self) -> list[str]:
        """Files that the table does not place."""
        return [
            f"{self._path(module)} stands on no floor: add it to {self.law.table}, "
            "below everything that imports it and above everything that it imports"
            for module in self.sources
            if module != FACE and self.law.place(module) is None
        ]

    def wrong_arrows(self) -> list[str]:
        """Imports of a later file, a higher floor, the public face from below, or a foreign package."""
        return [
            offence
            for module in self.sources
            for arrow in self.arrows(module)
            if (offence := self._judge(module, arrow)) is not None
        ]

    def hidden_imports(self) -> list[str]:
        """Imports in functions or through importlib without a reason, and reasons without an import."""
        seen = {
            (f"{module}.py", arrow.target): arrow
            for module in self.sources
            for arrow in self.arrows(module)
            if arrow.inside is not None
        }
        offences = [
            f"{self.law.package}/{file}:{arrow.line} imports {target} inside {arrow.inside}: "
            "import it at the top, or record the reason"
            for (file, target), arrow in seen.items()
            if (file, target) not in self.law.deferred
        ]
        offences += [
            f"the exception for {file} importing {target} is not needed any more: remove it"
            for file, target in self.law.deferred
            if (file, target) not in seen
        ]
        return offences

    def forbidden_words(self, folder: str, words: Sequence[str]) -> list[str]:
        """Lines below `folder` that say one of `words`, other than as the package's own name."""
        package = re.escape(self.law.package)
        own_name = re.compile(
            rf"{package.upper()}_[A-Z]+|\b{package}(?=[./])|(?:import|from|-m) {package}\b"
            rf"|[\"'`]{package}\b|\b{package} (?:is|needs|cannot)\b"
        )
        said = re.compile("|".join(words), re.IGNORECASE)
        return [
            f"{self._path(module)}:{number} says {match[0]!r}, which {folder} does not know: {line.strip()}"
            for module, source in self.sources.items()
            if module.startswith(f"{folder}/")
            for number, line in enumerate(source.splitlines(), 1)
            if (match := said.search(own_name.sub("", line)))
        ]

    def without_theory(self) -> list[str]:
        """Files that open with neither a docstring nor a comment."""
        return [
            f"{self._path(module)} does not say what it is: open it with a docstring or a comment"
            for module, source in self.sources.items()
            if not ast.get_docstring(ast.parse(source)) and not source.lstrip().startswith("#")
        ]

    def too_long(self, limit: int) -> list[str]:
        """Files with more than `limit` lines of code; blank lines, comments and docstrings are free."""
        lengths = {module: len(code_lines(source)) for module, source in self.sources.items()}
        return [
            f"{self._path(module)} has {length} lines of code, {length - limit} more than {limit}: split it"
            for module, length in lengths.items()
            if length > limit
        ]

    # -- reading

    def arrows(self, module: str) -> Iterator[Arrow]:
        """Every import of one file, wherever it stands."""
        yield from self._walk(ast.parse(self.sources[module]), module, None)

    def _walk(self, node: ast.AST, module: str, inside: str | None) -> Iterator[Arrow]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Arrow(child.lineno, alias.name, inside)
            elif isinstance(child, ast.ImportFrom):
                base = self._base(child, module)
                for alias in child.names:
                    yield Arrow(child.lineno, self._named(base, alias.name), inside)
            elif isinstance(child, ast.Call) and _called(child.func) in ("import_module", "__import__"):
                first = child.args[0] if child.args else None
                known = isinstance(first, ast.Constant) and isinstance(first.value, str)
                target = str(first.value) if known and isinstance(first, ast.Constant) else "a computed name"
                yield Arrow(child.lineno, target, f"{_called(child.func)}()")
                yield from self._walk(child, module, inside)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from self._walk(child, module, f"{child.name}()")
            else:
                yield from self._walk(child, module, inside)

    def _base(self, node: ast.ImportFrom, module: str) -> str:
        if not node.level:
            return node.module or ""
        parts = [self.law.package, *module.split("/")]
        parts = parts[: len(parts) - node.level]
        return ".".join([*parts, node.module] if node.module else parts)

    def _named(self, base: str, name: str) -> str:
        whole = f"{base}.{name}"
        return whole if self._file_of(whole) is not None else base

    def _file_of(self, dotted: str) -> str | None:
        """The file of a dotted module of this package, if the package has it."""
        first, *rest = dotted.split(".")
        if first != self.law.package:
            return None
        path = "/".join(rest)
        package = f"{path}/{FACE}" if path else FACE
        return next((known for known in (path, package) if known in self.sources), None)

    # -- judging

    def _judge(self, module: str, arrow: Arrow) -> str | None:
        place = self.law.place(module)
        where = f"{self._path(module)}:{arrow.line} ({place[1] if place else 'the public face'})"
        top = arrow.target.split(".")[0]
        if top != self.law.package:
            return self._judge_foreign(place, where, arrow, top)
        file = self._file_of(arrow.target)
        if file is None:
            return f"{where} imports {arrow.target}, which does not exist" if arrow.target != top else None
        if place is None:
            return self._judge_face(where, arrow, file) if module == FACE else None
        if file == FACE:
            if place[1].number == self.law.floors[-1].number:
                return None
            return f"{where} must not import from the public face, {self.law.package}/__init__.py"
        target = self.law.place(file)
        if target is None or target[0] < place[0] or file == module:
            return None
        if target[0] == place[0]:
            return f"{where} must not import {arrow.target} ({target[1]}): they are equals"
        later = "which comes later in the same floor" if target[1] is place[1] else str(target[1])
        return f"{where} must not import {arrow.target} ({later})"

    def _judge_foreign(self, place: tuple[int, Floor] | None, where: str, arrow: Arrow, top: str) -> str | None:
        if top in sys.stdlib_module_names or arrow.target == "a computed name":
            return None
        if place is not None and top in place[1].third_party:
            return None
        return f"{where} must not import {top}, which is no part of Python"

    def _judge_face(self, where: str, arrow: Arrow, file: str) -> str | None:
        target = self.law.place(file)
        if target is None or any(_matches(file, entry) for entry in self.law.face_may_import):
            return None
        allowed = ", ".join(self.law.face_may_import)
        return f"{where} must not import {arrow.target} ({target[1]}): only {allowed}"

    def _path(self, module: str) -> str:
        return f"{self.law.package}/{module}.py"


def code_lines(source: str) -> set[int]:
    """The numbers of the lines that hold code: no blank line, no comment, no docstring."""
    ignored = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in ignored:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and type(node.value.value) is str:
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def _matches(module: str, entry: str) -> bool:
    """Like a shell: `*` does not cross a folder."""
    return module.count("/") == entry.count("/") and fnmatch.fnmatchcase(module, entry)


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
