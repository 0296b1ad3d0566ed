"""eventlet.green: standard modules whose blocking functions suspend a fiber.

`import_patched` makes a copy of any other module on these.
"""

from . import os, select, selectors, socket, ssl, subprocess, time

__all__ = ["os", "select", "selectors", "socket", "ssl", "subprocess", "time"]
