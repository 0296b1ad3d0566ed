"""gevent.local: attributes of which every fiber has its own."""

from ...core.local import Local as local  # noqa: N813 - as gevent calls it

__all__ = ["local"]
