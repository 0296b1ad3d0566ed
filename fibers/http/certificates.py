"""Certificates of a server: by the name that the client asks for, and renewed without a restart.

* A client says in its first message which name it wants (SNI); the context of that name takes over before anything is
  encrypted. Names may begin with `*.`, which stands for one label; a client that names nobody known gets the default.
* Certificates are renewed every few weeks, by a program that replaces two files. Contexts are immutable for who is using
  them: new ones are made, and take the next connections. When the files do not fit together (one of the two has been
  replaced so far), the old ones stay, and it is tried again.
* Looking whether files have changed is a system call for each: it is done at most every few seconds, when somebody comes.
"""

import logging
import os
from collections.abc import Mapping
from ssl import OP_NO_COMPRESSION, PROTOCOL_TLS_SERVER, SSLError, TLSVersion
from time import monotonic
from typing import Any, Final

from ..io import ssl

_log: Final = logging.getLogger("fibers.http")

#: What is spoken here, for ALPN.
PROTOCOLS: Final = ("http/1.1",)

Pair = tuple[str, str | None]


class Certificates:
    """Certificate chains and keys, as paths of PEM files; `key` None: it is in the same file.

    `names`: other pairs, by the host names (or `*.name`) that they are for. The files are looked at again when a client
    comes, every `check` seconds at most (None: only by `reload`). Raises OSError or ssl.SSLError if they cannot be used
    in the beginning. May be used by all threads.
    """

    def __init__(
        self,
        certificate: str | os.PathLike[str],
        key: str | os.PathLike[str] | None = None,
        *,
        names: Mapping[str, Pair] | None = None,
        check: float | None = 5.0,
    ) -> None:
        self._pairs: dict[str, Pair] = {"": (os.fspath(certificate), None if key is None else os.fspath(key))}
        self._pairs.update({name.lower(): pair for name, pair in (names or {}).items()})
        self._check = check
        self._looked = monotonic()
        self._seen = self._stamps()
        self._contexts = self._load()

    def __call__(self) -> Any:
        """The context for a new connection."""
        if self._check is not None and monotonic() - self._looked >= self._check:
            self._looked = monotonic()
            if self._stamps() != self._seen:
                self.reload()
        return self._contexts[""]

    def reload(self) -> bool:
        """Read the files again. False if they cannot be used: it is in the log, and the old ones stay."""
        seen = self._stamps()
        try:
            contexts = self._load()
        except (OSError, ValueError) as error:
            _log.error("the new certificates cannot be used, the old ones stay: %s", error)
            return False
        self._contexts, self._seen = contexts, seen
        _log.info("certificates have been read again")
        return True

    def _stamps(self) -> list[tuple[int, int] | None]:
        return [_stamp(path) for pair in self._pairs.values() for path in pair if path is not None]

    def _load(self) -> dict[str, Any]:
        return {name: self._context(*pair) for name, pair in self._pairs.items()}

    def _context(self, certificate: str, key: str | None) -> Any:
        context = ssl.SSLContext(PROTOCOL_TLS_SERVER)
        context.minimum_version = TLSVersion.TLSv1_2
        context.options |= OP_NO_COMPRESSION
        context.set_alpn_protocols(list(PROTOCOLS))
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, SSLError) as error:
            raise type(error)(error.errno, f"{certificate}, {key or certificate}: {error.strerror or error}") from error
        context.sni_callback = self._choose
        return context

    def _choose(self, sock: Any, name: str | None, context: Any) -> None:
        if name is None:
            return
        name = name.lower()
        contexts = self._contexts
        chosen = contexts.get(name) or contexts.get("*." + name.partition(".")[2])
        if chosen is not None:
            sock.context = chosen

    def __repr__(self) -> str:
        return f"<Certificates {', '.join(pair[0] for pair in self._pairs.values())}>"


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
