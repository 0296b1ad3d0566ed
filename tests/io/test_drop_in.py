"""`fibers.io.socket` stands in for the standard module: the same names, classes that pass for the standard ones."""

import enum
import inspect
import io
import socket as std
from types import ModuleType

import pytest

import fibers
from fibers.io import socket

OF_OTHER_MODULES = {"IntEnum", "IntFlag"}


def public_names() -> list[str]:
    return [
        name
        for name, value in vars(std).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name not in OF_OTHER_MODULES
    ]


@pytest.mark.parametrize("name", public_names())
def test_every_public_name_is_there(name: str) -> None:
    assert hasattr(socket, name), f"socket.{name} is missing"
    theirs, ours = getattr(std, name), getattr(socket, name)
    if isinstance(theirs, int | enum.Enum | tuple | str) or (
        isinstance(theirs, type) and name not in ("socket", "SocketType")
    ):
        assert ours is theirs or ours == theirs


def test_all_is_the_standard_modules() -> None:
    assert set(std.__all__) <= set(socket.__all__)


@pytest.mark.parametrize("name", [name for name in public_names() if inspect.isfunction(getattr(std, name))])
def test_functions_take_the_same_arguments(name: str) -> None:
    """Every call that the standard function accepts, by position or by keyword, ours accepts too."""
    theirs = inspect.signature(getattr(std, name)).parameters
    ours = inspect.signature(getattr(socket, name)).parameters
    if any(each.kind is each.VAR_KEYWORD for each in ours.values()):
        keywords = [key for key, each in theirs.items() if each.kind is not each.KEYWORD_ONLY]
        assert [key for key, each in ours.items() if each.kind is not each.VAR_KEYWORD] == keywords
        return
    assert list(ours) == list(theirs)
    for key, each in theirs.items():
        assert (ours[key].default is each.default) or ours[key].default == each.default


@pytest.mark.parametrize("name", [n for n in dir(std.socket) if not n.startswith("_")])
def test_every_method_is_there(name: str) -> None:
    assert hasattr(socket.socket, name)


def test_sockets_are_standard_sockets() -> None:
    made: list[std.socket] = []
    a, b = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    made += [a, b, listener, client, server, a.dup(), socket.fromfd(a.fileno(), a.family, a.type), socket.socket()]
    for each in made:
        assert isinstance(each, std.socket)
        assert isinstance(each, socket.SocketType)
        assert type(each) is socket.socket
        assert type(each.family) is std.AddressFamily
        assert type(each.type) is std.SocketKind
        each.close()


def test_errors_are_the_standard_ones() -> None:
    assert socket.error is OSError
    assert socket.timeout is TimeoutError
    assert socket.gaierror is std.gaierror
    assert socket.herror is std.herror


def test_a_socket_of_the_standard_class_is_not_touched() -> None:
    a, b = std.socketpair()
    with a, b:
        assert type(a) is std.socket
        assert type(a) is not socket.socket
        a.settimeout(0.01)
        with pytest.raises(TimeoutError):
            a.recv(1)
        assert a.gettimeout() == 0.01


def test_repr_says_what_the_standard_one_says() -> None:
    a, b = socket.socketpair()
    with b:
        assert f"fd={a.fileno()}" in repr(a)
        a.close()
        assert "[closed]" in repr(a)


def test_a_subclass_works() -> None:
    class Counting(socket.socket):
        received = 0

        def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
            data = super().recv(bufsize, flags)
            self.received += len(data)
            return data

    with socket.create_server(("127.0.0.1", 0)) as listener:
        with Counting() as client:
            client.connect(listener.getsockname())
            server, _ = listener.accept()
            reader = fibers.spawn(client.recv, 100)
            server.send(b"12345")
            assert reader.result(5) == b"12345"
            assert client.received == 5
            server.close()


def test_sockets_cannot_be_pickled_or_copied() -> None:
    with socket.socket() as sock, pytest.raises(TypeError):
        sock.__getstate__()


def test_socket_io_is_a_raw_stream() -> None:
    a, b = socket.socketpair()
    with a, b, a.makefile("rwb", buffering=0) as raw:
        assert isinstance(raw, io.RawIOBase)
        assert raw.readable()
        assert raw.writable()
        assert not raw.seekable()
