"""Input and output that suspends the fiber and not the thread, under the standard library's names.

`from fibers.io import socket` is a drop-in for `import socket`; so are `ssl` and `os`.
`connect` connects to a host by name: by the first of its addresses that answers, in TLS if asked to.
`Stream` reads lines and records from a socket, a TLS socket or a pipe: `open_pipe`, `open_fifo`, `stdin`, `stdout`,
`stderr`, and `open_fd` for any other open file. `input` and `print` are the builtins over these.
`open` is the builtin `open` with the system calls in worker threads; `copyfile` copies as `shutil.copyfile` does.
"""

from .copying import copyfile
from .file import open
from .happy_eyeballs import connect
from .inherited import open_fd
from .pipe import open_fifo, open_pipe
from .standard import input, print, stderr, stdin, stdout
from .stream import IncompleteReadError, LimitExceededError, Stream

__all__ = [
    "IncompleteReadError", "LimitExceededError", "Stream", "connect", "copyfile", "input", "open", "open_fd", "open_fifo",
    "open_pipe", "print", "stderr", "stdin", "stdout",
]  # fmt: skip
