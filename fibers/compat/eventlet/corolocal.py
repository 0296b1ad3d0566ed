"""eventlet.corolocal: attributes of which every fiber has its own."""

from ..gevent.hub import getcurrent
from ..gevent.local import local


def get_ident() -> int:
    """A number that no other living fiber has."""
    return id(getcurrent())


__all__ = ["get_ident", "local"]
