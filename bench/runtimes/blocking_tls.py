"""TLS workloads for the runtimes in plain blocking style; both ends are in the process, so a sample pays for both.

One socket's worth of TLS is mostly OpenSSL's work, the same for all. What differs is how often a runtime calls the
kernel, and what it does in between.
"""

from __future__ import annotations

from typing import Any

from bench import material, tls
from bench.runtimes.blocking_style import Style, Work, add
from bench.sample import Sample, Stopwatch


def receive(sock: Any, size: int) -> bytes:
    """A whole message, which normally comes in one piece."""
    data: bytes = sock.recv(size)
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise RuntimeError("the connection has ended early")
        data += more
    return data


def sender(sock: Any, count: int) -> None:
    """Send first, then wait for the answer, `count` times."""
    for _ in range(count):
        sock.sendall(tls.MESSAGE)
        receive(sock, len(tls.MESSAGE))


def answerer(sock: Any, count: int) -> None:
    """Wait for a message, then send it back, `count` times."""
    for _ in range(count):
        sock.sendall(receive(sock, len(tls.MESSAGE)))


def workloads(style: Style, module: Any) -> dict[tuple[str, str], Work]:
    """The TLS workloads of one runtime; `module` is its `ssl`."""

    def serve(context: Any, sock: Any, made: list[Any]) -> None:
        made.append(context.wrap_socket(sock, server_side=True))

    def shake_hands(server: Any, client: Any, near: Any, far: Any) -> tuple[Any, Any]:
        made: list[Any] = []
        task = style.spawn(serve, server, far, made)
        wrapped = client.wrap_socket(near, server_hostname=tls.HOST)
        style.join(task)
        return wrapped, made[0]

    def tls_echo(n: int) -> Sample:
        server, client = tls.server_context(module), tls.client_context(module)
        pairs = [(style.adopt(near), style.adopt(far)) for near, far in material.pairs("tcp", tls.PAIRS)]
        made = [shake_hands(server, client, *pair) for pair in pairs]
        watch = Stopwatch()
        tasks = []
        for near, far in made:
            tasks.append(style.spawn(answerer, far, n))
            tasks.append(style.spawn(sender, near, n))
        style.join_all(tasks)
        sample = watch.stop(2 * n * tls.PAIRS)
        material.close_all(end for pair in made for end in pair)
        return sample

    def tls_handshake(n: int) -> Sample:
        server, client = tls.server_context(module), tls.client_context(module)
        total = Sample(0.0, 0.0, 0.0, 0)
        for _ in range(n):
            pairs = [(style.adopt(near), style.adopt(far)) for near, far in material.pairs("tcp", tls.HANDSHAKES)]
            watch = Stopwatch()
            made = [shake_hands(server, client, *pair) for pair in pairs]
            total = add(total, watch.stop(tls.HANDSHAKES))
            material.close_all(end for pair in made for end in pair)
        return total

    return {("tls_echo", ""): tls_echo, ("tls_handshake", ""): tls_handshake}
