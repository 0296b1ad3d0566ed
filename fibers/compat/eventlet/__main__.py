"""`python -m fibers.compat.eventlet script.py …`: see program.py."""

import sys

from ..program import main
from . import install

if __name__ == "__main__":
    sys.exit(main("eventlet", install))
