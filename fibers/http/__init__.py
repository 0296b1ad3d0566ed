"""An HTTP/1.1 server in plain blocking handlers: `serve` for WSGI applications, `Server` for functions by path.

See docs/http.md for a guide. Everything about one connection stands in connection.py; how a server is started and stopped
in serving.py and `fibers.server`.
"""

from .accesslog import AccessLog
from .answers import File, Response
from .body import Body
from .certificates import Certificates
from .errors import ClientGoneError, RequestError
from .exchange import Exchange
from .head import Head, Limits
from .hub import Settings
from .logformat import COMBINED, COMMON, JSON
from .origin import Origin
from .request import Headers, Request
from .routes import Server
from .serving import HttpServer, serve
from .websocket import WebSocket, WebSocketClosed, WebSocketLimits

__all__ = [
    "COMBINED", "COMMON", "JSON", "AccessLog", "Body", "Certificates", "ClientGoneError", "Exchange", "File", "Head",
    "Headers", "HttpServer", "Limits", "Origin", "Request", "RequestError", "Response", "Server", "Settings", "WebSocket",
    "WebSocketClosed", "WebSocketLimits", "serve",
]  # fmt: skip
