"""The application under fibers."""

import fibers
from bench.http.apps import wsgi

app = wsgi(fibers.sleep)
