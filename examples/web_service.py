"""A web service: notes that are kept, listed and streamed, in plain functions.

python examples/web_service.py [PORT]        then, elsewhere: curl -d 'a note' http://127.0.0.1:8000/notes
python examples/web_service.py --check
"""

import sys
from collections.abc import Iterator
from http.client import HTTPConnection

import fibers
from fibers.http import HttpServer, Request, RequestError, Response, Server

server = Server()
notes: list[str] = []
changed = fibers.Condition()


@server.route("/notes", methods=["POST"])
def add(request: Request) -> Response:
    """Keep a note, and wake whoever follows."""
    with changed:
        notes.append(request.text(limit=10_000))
        changed.notify_all()
    return Response({"id": len(notes) - 1}, 201)


@server.route("/notes")
def list_all(request: Request) -> list[str]:
    """All of them, as JSON."""
    return list(notes)


@server.route("/notes/{number}")
def show(request: Request, number: str) -> str:
    """One of them."""
    if not number.isdecimal() or int(number) >= len(notes):
        raise RequestError(404, "there is no such note")
    return notes[int(number)]


@server.route("/follow/{count}")
def follow(request: Request, count: str) -> Iterator[str]:
    """The next notes, each when it comes: a handler that waits is a fiber that waits."""
    for number in range(len(notes), len(notes) + int(count)):
        with changed:
            changed.wait_for(lambda wanted=number: len(notes) > wanted)  # type: ignore[misc]
        yield notes[number] + "\n"


def ask(port: int, method: str, path: str, body: str | None = None) -> str:
    """One request, from a thread: a client like any other."""
    client = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        client.request(method, path, body)
        answer = client.getresponse()
        return f"{answer.status} {answer.read().decode().strip()}"
    finally:
        client.close()


def check() -> None:
    """A follower and some writers."""
    with HttpServer(server, ("127.0.0.1", 0)) as running:
        port = running.address[1]
        with fibers.TaskGroup() as group:
            follower = group.spawn(fibers.to_thread, ask, port, "GET", "/follow/2")
            while not any(hub.running for hub in running.board.hubs()):
                fibers.sleep(0.001)
            for text in ("buy bread", "read a book"):
                print(fibers.to_thread(ask, port, "POST", "/notes", text))
        print(follower.result())
        print(fibers.to_thread(ask, port, "GET", "/notes"))
        print(fibers.to_thread(ask, port, "GET", "/notes/1"))
        print(fibers.to_thread(ask, port, "GET", "/notes/7"))


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        fibers.run(check)
    else:
        server.serve(port=int(sys.argv[1]) if sys.argv[1:] else 8000, access_log="-")
