"""As much of S3 as boto3 needs here: objects by path. `slow/SECONDS` comes late, `waiting` is how many are waited for.

python s3_server.py PORT
"""

import sys
from collections.abc import Iterator

import fibers
from fibers.http import Request, Response, Server

server = Server()
objects: dict[str, bytes] = {}
waiting = 0


@server.route("/{name*}", methods=["PUT"])
def put(request: Request, name: str) -> Response:
    body = request.read()
    if "aws-chunked" in (request.headers.get("content-encoding") or ""):
        body = b"".join(_unchunked(body))
    objects[name] = body
    return Response(b"", 200, [("ETag", '"1"')])


def _unchunked(body: bytes) -> Iterator[bytes]:
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        if not length:
            return
        yield body[:length]
        body = body[length + 2 :]


@server.route("/{name*}")
def get(request: Request, name: str) -> bytes | Response:
    global waiting
    _bucket, _, key = name.partition("/")
    if key == "waiting":
        return str(waiting).encode()
    if key.startswith("slow/"):
        waiting += 1
        try:
            fibers.sleep(float(key.removeprefix("slow/")))
        finally:
            waiting -= 1
        return b"late"
    if name not in objects:
        return Response(b"<Error><Code>NoSuchKey</Code></Error>", 404, [("Content-Type", "application/xml")])
    return objects[name]


if __name__ == "__main__":
    server.serve(host="127.0.0.1", port=int(sys.argv[1]))
