"""Input and output that suspends the fiber and not the thread, under the standard library's names.

`from fibers.io import socket` is a drop-in for `import socket`, and `from fibers.io import ssl` for `import ssl`.
`connect` connects to a host by name: by the first of its addresses that answers, in TLS if asked to.
`Stream` reads lines and records from a socket, a TLS socket or a pipe.
"""

from .happy_eyeballs import connect
from .stream import IncompleteReadError, LimitExceededError, Stream

__all__ = ["IncompleteReadError", "LimitExceededError", "Stream", "connect"]
