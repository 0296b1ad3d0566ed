"""Input and output that suspends the fiber and not the thread, under the standard library's names.

`from fibers.io import socket` is a drop-in for `import socket`.
`Stream` reads lines and records from a socket, a TLS socket or a pipe.
"""

from .stream import IncompleteReadError, LimitExceededError, Stream

__all__ = ["IncompleteReadError", "LimitExceededError", "Stream"]
