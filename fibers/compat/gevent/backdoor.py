"""gevent.backdoor: an interactive Python prompt for whoever connects. For loopback only: it can do anything."""

import builtins
import code
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from .server import StreamServer


class BackdoorServer(StreamServer):
    """Serves a prompt with the variables `locals`. Statements run in a fiber each connection has of its own.

    What a statement prints goes to the connection, also what other fibers print while it waits.
    """

    def __init__(self, listener: Any, locals: dict[str, Any] | None = None, banner: str | None = None, **options: Any):
        super().__init__(listener, self._talk, **options)
        self.locals = {} if locals is None else locals
        self.banner = banner

    def _talk(self, sock: Any, address: Any) -> None:
        stream = sock.makefile("rw", encoding="utf-8", errors="replace", newline="\n")
        console = code.InteractiveConsole({"__builtins__": builtins, "__name__": "__console__", **self.locals})
        console.write = stream.write  # type: ignore[method-assign]
        if self.banner is not None:
            stream.write(f"{self.banner}\n")
        prompt = ">>> "
        while True:
            stream.write(prompt)
            stream.flush()
            line = stream.readline()
            if not line:
                return
            printed = StringIO()
            try:
                with redirect_stdout(printed):
                    more = console.push(line.rstrip("\r\n"))
            except SystemExit:
                return
            stream.write(printed.getvalue())
            prompt = "... " if more else ">>> "


__all__ = ["BackdoorServer"]
