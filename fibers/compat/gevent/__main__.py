"""`python -m fibers.compat.gevent script.py …`: see program.py."""

import sys

from ..program import main
from . import install

if __name__ == "__main__":
    sys.exit(main("gevent", install))
