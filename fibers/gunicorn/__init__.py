"""A worker for gunicorn: `gunicorn -k fibers.gunicorn.Worker module:app`. See docs/deployment.md.

gunicorn's master starts, watches and replaces the processes; inside of each the HTTP server of `fibers.http` runs.
"""

from .worker import Worker

__all__ = ["Worker"]
