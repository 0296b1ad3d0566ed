"""What gunicorn's settings say, in the words of `fibers.http`.

Facts, and what follows:

* gunicorn counts whole connections against `worker_connections`. So a worker has that many handlers, and no more
  connections than that, idle ones included; who comes beyond waits in the listener's queue, where another worker finds him.
* Zero means "no limit" for some of gunicorn's limits. For a line and a field there is one nevertheless, its largest: a head
  without an end is a leak that clients control.
* What gunicorn only offers because its own parser once was lenient (obsolete folding, spaces before a colon) has no place
  here, and neither have the protocols that are not spoken. Who sets such a thing is told at the start: by an error where
  requests would be understood otherwise than he means, by a warning where nothing but a wish is left out.
"""

from typing import Any, Final

from gunicorn.sock import ssl_context

from ..http.head import Limits
from ..http.hub import Settings
from ..http.networks import Networks
from ..io.ssl import SSLSocket

#: The largest line and field that gunicorn allows where it has a limit (bytes).
LARGEST: Final = 8_190
#: The most fields that it allows.
MOST_FIELDS: Final = 32_768
#: The size of a head within which all fields have to fit (bytes), if one alone may not be larger.
WHOLE_HEAD: Final = 65_536

#: Settings that have to be as they were, with the reason.
_REFUSED: Final = {
    "protocol": ("http", "only HTTP is spoken here; let the proxy use proxy_pass or http:// instead of uwsgi"),
    "permit_obsolete_folding": (False, "folded header lines are refused: a proxy may read them otherwise"),
    "strip_header_spaces": (False, "space before a colon is refused: a proxy may read it otherwise"),
    "casefold_http_method": (False, "methods are case-sensitive, and are passed on as they are"),
    "header_map": ("drop", "names with an underscore are dropped, but for those in forwarder_headers"),
}
#: Settings that do nothing here, with the reason.
_LEFT_OUT: Final = {
    "threads": (1, "each request has a fiber; more cores are used by more workers"),
    "http2_cleartext": ("off", "HTTP/2 is not spoken here, but by a proxy in front"),
    "permit_unconventional_http_version": (False, "HTTP/1.0 and HTTP/1.1 are spoken here"),
}


def problems(cfg: Any) -> tuple[list[str], list[str]]:
    """What of a configuration cannot be had here: what is an error, and what is left out. Sentences."""
    return _differing(cfg, _REFUSED), _differing(cfg, _LEFT_OUT) + _protocols(cfg)


def _differing(cfg: Any, table: dict[str, tuple[Any, str]]) -> list[str]:
    found = []
    for name, (expected, reason) in table.items():
        setting = cfg.settings.get(name)  # older versions lack some
        if setting is not None and setting.get() != expected:
            found.append(f"{name} = {setting.get()!r}: {reason}")
    return found


def _protocols(cfg: Any) -> list[str]:
    setting = cfg.settings.get("http_protocols")
    others = [] if setting is None else [each for each in setting.get() if each != "h1"]
    return [f"http_protocols with {', '.join(others)}: only h1 is spoken here"] if others else []


def settings_of(cfg: Any, base: Settings) -> Settings:
    """The settings of a worker; what gunicorn has no word for is as in `base`."""
    proxied = cfg.settings["proxy_protocol"].get() not in ("off", False, None)
    return base._replace(
        limits=limits_of(cfg, base.limits),
        max_handlers=max(1, cfg.worker_connections),
        factor=0.0,
        keep_alive_timeout=float(cfg.keepalive),
        close_after=base.close_after if cfg.keepalive else 1,
        proxy_protocol=Networks([*cfg.proxy_allow_ips, "unix"]) if proxied else None,
    )


def limits_of(cfg: Any, base: Limits) -> Limits:
    """How large a head may be."""
    line = min(cfg.limit_request_line or LARGEST, LARGEST)
    field = cfg.limit_request_field_size or LARGEST
    return base._replace(
        line=line,
        field=field,
        fields=min(cfg.limit_request_fields or MOST_FIELDS, MOST_FIELDS),
        head=max(base.head, line + field + 4),
        underscored=frozenset(name.lower() for name in forwarder_names(cfg)),
    )


def forwarder_names(cfg: Any) -> list[str]:
    """The fields with an underscore in their name that a proxy may send."""
    setting = cfg.settings.get("forwarder_headers")
    return [] if setting is None else [name for name in setting.get() if "_" in name or name == "*"]


def forwarders(cfg: Any) -> Networks:
    """Who is believed about the scheme and the script name. Peers on unix sockets always are, as gunicorn has it."""
    return Networks([*cfg.forwarded_allow_ips, "unix"])


def tls_of(cfg: Any) -> Any:
    """The TLS context, made by gunicorn's hook `ssl_context`; None without TLS. Raises OSError, ssl.SSLError.

    It makes sockets of ours, and agrees on HTTP/1.1 only, whatever else was configured.
    """
    if not cfg.is_ssl:
        return None
    context = ssl_context(cfg)
    context.sslsocket_class = SSLSocket
    context.set_alpn_protocols(["http/1.1"])
    return context
