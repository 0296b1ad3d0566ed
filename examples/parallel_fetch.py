"""Fetches pages over HTTP side by side; the slowest one, not their sum, is what it takes.

python examples/parallel_fetch.py http://example.org/ http://example.net/
python examples/parallel_fetch.py --check
"""

import sys
from urllib.parse import urlsplit

import fibers
from fibers.io import socket

PAUSE = 0.2


def fetch(url: str) -> tuple[str, int]:
    """The status line and the length of the body. Raises OSError, TimeoutError included."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"not a plain http address: {url}")
    request = f"GET {parts.path or '/'} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n"
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=10) as connection:
        connection.sendall(request.encode())
        answer = b""
        while data := connection.recv(65536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0].decode("latin-1"), len(body)


def main(urls: list[str]) -> None:
    """Start all of them; print each when those before it are printed."""
    for url, fiber in [(url, fibers.spawn(fetch, url)) for url in urls]:
        try:
            status, length = fiber.result()
        except (OSError, ValueError) as error:
            print(f"{url}  {type(error).__name__}: {error}")
        else:
            print(f"{url}  {status}, {length:,} bytes")


def answer(connection: socket.socket) -> None:
    """A slow page."""
    with connection:
        connection.recv(4096)
        fibers.sleep(PAUSE)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 5000)


def serve(listener: socket.socket) -> None:
    """Accept for ever."""
    with listener:
        while True:
            fibers.spawn(answer, listener.accept()[0])


def check() -> None:
    """Fifty slow pages take hardly longer than one."""
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()
    fibers.spawn(serve, listener)
    begin = fibers.current_time()
    pages = [fibers.spawn(fetch, f"http://{host}:{port}/{number}") for number in range(50)]
    assert {page.result() for page in pages} == {("HTTP/1.0 200 OK", 5000)}
    assert fibers.current_time() - begin < 50 * PAUSE / 2
    print("50 pages, side by side")


if __name__ == "__main__":
    if "--check" in sys.argv:
        fibers.run(check)
    else:
        fibers.run(main, sys.argv[1:] or ["http://example.org/", "http://example.net/"])
