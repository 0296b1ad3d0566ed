"""A pool for celery's workers:

    CELERY_CUSTOM_WORKER_POOL=fibers.celery:TaskPool celery -A project worker --pool custom --concurrency 1000

See docs/deployment.md. celery imports the pool's module first of all, before the application: that is when the standard
library is patched. It is what the environment variable asks for; where that is not set, importing this changes nothing.
"""

import os
from typing import Final

from ..patch import patch_all

#: Where celery looks for a pool of somebody else's.
CUSTOM: Final = "CELERY_CUSTOM_WORKER_POOL"

if os.environ.get(CUSTOM):
    patch_all()

from .pool import TaskPool  # noqa: E402 - what this imports is to find everything patched

__all__ = ["TaskPool"]
