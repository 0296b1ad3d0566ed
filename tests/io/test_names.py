"""Names: numeric addresses, `localhost` and known services without a thread, everything else in a worker thread.

Only the calling fiber waits, and who asks the same at the same time shares the look-up.
"""

import _socket
import random
import socket as std
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.process import run_python
from support.scale import SEED, scaled

import fibers
from fibers.io import hosts, names, socket
from fibers.io import lookups as sharing
from fibers.threads import to_thread as threads
from fibers.threads.workers import WorkerPool


def spy_on(real: Callable[..., Any], seen: list[str]) -> Callable[..., Any]:
    def spy(*args: Any) -> Any:
        seen.append(threading.current_thread().name)
        return real(*args)

    return spy


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads in which the C library's look-ups run."""
    seen: list[str] = []
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo"):
        monkeypatch.setattr(_socket, name, spy_on(getattr(_socket, name), seen))
    return seen


NUMERIC: dict[str, Callable[[], Any]] = {
    "getaddrinfo IPv4": lambda: socket.getaddrinfo("127.0.0.1", 80),
    "getaddrinfo IPv6": lambda: socket.getaddrinfo("::1", 80),
    "getaddrinfo bytes": lambda: socket.getaddrinfo(b"127.0.0.1", b"80"),
    "getaddrinfo digits": lambda: socket.getaddrinfo("127.0.0.1", "80", type=socket.SOCK_STREAM),
    "getaddrinfo no host": lambda: socket.getaddrinfo(None, 80, flags=socket.AI_PASSIVE),
    "getaddrinfo AI_NUMERICHOST": lambda: socket.getaddrinfo("127.0.0.1", 80, flags=socket.AI_NUMERICHOST),
    "getnameinfo": lambda: socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV),
    "getaddrinfo no port": lambda: socket.getaddrinfo("127.0.0.1", None),
    "gethostbyname": lambda: socket.gethostbyname("127.0.0.1"),
}


@pytest.mark.parametrize("call", NUMERIC.values(), ids=NUMERIC)
def test_numeric_addresses_need_no_thread(lookups: list[str], call: Callable[[], Any]) -> None:
    assert call()
    assert [name for name in lookups if name.startswith("fibers-worker")] == []


#: A name that the C library finds in a file.
HERE = std.gethostname()

NAMED: dict[str, Callable[[], Any]] = {
    "getaddrinfo": lambda: socket.getaddrinfo(HERE, 80),
    "getaddrinfo with a service": lambda: socket.getaddrinfo("127.0.0.1", "http"),
    "getaddrinfo AI_CANONNAME": lambda: socket.getaddrinfo("localhost", 80, flags=socket.AI_CANONNAME),
    "gethostbyname": lambda: socket.gethostbyname(HERE),
    "gethostbyname_ex": lambda: socket.gethostbyname_ex("localhost"),
    "gethostbyaddr": lambda: socket.gethostbyaddr("127.0.0.1"),
    "getnameinfo": lambda: socket.getnameinfo(("127.0.0.1", 80), 0),
    "getfqdn": lambda: socket.getfqdn("127.0.0.1"),
    "connect_ex": lambda: _on_a_socket("connect_ex", (HERE, 1)),
    "bind": lambda: _on_a_socket("bind", (HERE, 0)),
    "create_server": lambda: socket.create_server((HERE, 0)).close(),
}


def _on_a_socket(call: str, address: Any) -> None:
    with socket.socket() as sock:
        getattr(sock, call)(address)


@pytest.mark.parametrize("call", NAMED.values(), ids=NAMED)
def test_names_are_looked_up_in_a_worker_thread(lookups: list[str], call: Callable[[], Any]) -> None:
    try:
        call()
    except (std.gaierror, std.herror):
        pass  # a machine without /etc/services, or without names
    assert lookups
    assert all(name.startswith("fibers-worker") for name in lookups)


LOCAL: dict[str, Callable[[], Any]] = {
    "getaddrinfo": lambda: socket.getaddrinfo("localhost", 80),
    "getaddrinfo bytes": lambda: socket.getaddrinfo(b"LOCALHOST", "80"),
    "getaddrinfo with a full name": lambda: socket.getaddrinfo("localhost.", 80),
    "getaddrinfo with a name below": lambda: socket.getaddrinfo("app.localhost", 80, type=socket.SOCK_STREAM),
    "getaddrinfo with flags": lambda: socket.getaddrinfo("localhost", 80, flags=socket.AI_PASSIVE),
    "gethostbyname": lambda: socket.gethostbyname("localhost"),
    "connect_ex": lambda: _on_a_socket("connect_ex", ("localhost", 1)),
    "bind": lambda: _on_a_socket("bind", ("localhost", 0)),
    "create_server": lambda: socket.create_server(("localhost", 0)).close(),
}


@pytest.mark.parametrize("call", LOCAL.values(), ids=LOCAL)
def test_localhost_needs_no_thread(
    lookups: list[str], monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]
) -> None:
    monkeypatch.setattr(names, "hosts", hosts.Hosts("/nowhere"))
    call()
    assert [name for name in lookups if name.startswith("fibers-worker")] == []


#: IPv6 only where /etc/hosts has it for localhost: else the C library would ask a name server.
FAMILIES = [socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6][: 3 if "::1" in hosts.hosts.loopback("localhost") else 2]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [0, socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("flags", [0, socket.AI_PASSIVE, socket.AI_ADDRCONFIG, socket.AI_CANONNAME])
@pytest.mark.parametrize("port", [None, 80, "80", "http", "nonsense"])
def test_localhost_is_what_the_standard_library_says(port: Any, family: int, kind: int, flags: int) -> None:
    """Of this machine's file of hosts; but for an address `::1` that the file lists and the machine lacks."""
    given: Any = ("localhost", port, family, kind, 0, flags)
    expected = outcome(std.getaddrinfo, *given)
    if family == socket.AF_UNSPEC and isinstance(expected, list) and not hosts.can_reach_v6():
        expected = [each for each in expected if each[0] != socket.AF_INET6]
    found = outcome(socket.getaddrinfo, *given)
    assert found == expected
    if isinstance(found, list):
        assert type(found[0][0]) is std.AddressFamily
        assert type(found[0][1]) is std.SocketKind


def outcome(function: Callable[..., Any], *args: Any) -> Any:
    """What it returns, or what its error says."""
    try:
        return function(*args)
    except OSError as error:
        return type(error), error.args


V4, V6 = "127.0.0.1", "::1"


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("", "localhost", {V4, V6}),
        ("127.0.0.1 localhost", "localhost", {V4}),
        ("127.0.0.1 me LocalHost # the loopback\n10.0.0.1 other", "localhost", {V4}),
        ("#127.0.0.1 localhost", "localhost", {V4, V6}),
        ("127.0.0.1 localhost\n::1 localhost", "LOCALHOST.", {V4, V6}),
        ("::1\tlocalhost", "localhost", {V4, V6}),
        ("127.0.0.1 localhost", "app.localhost", {V4}),
        ("127.0.0.1 localhost\n10.0.0.1 app.localhost", "app.localhost", set()),
        ("10.0.0.1 localhost", "localhost", set()),
        ("127.0.0.1 localhost", "localhost.localdomain", set()),
        ("127.0.0.1 localhost", "notlocalhost", set()),
        ("127.0.0.1 localhost", ".", set()),
        ("127.0.0.1 localhost\n" + "0.0.0.0 advertiser.example\n" * 10_000, "localhost", set()),
        ("127.0.0.1", "localhost", {V4, V6}),
    ],
)
def test_what_a_file_of_hosts_says_of_localhost(tmp_path: Path, text: str, name: str, expected: set[str]) -> None:
    (tmp_path / "hosts").write_text(text)
    for given in (name, name.encode()):
        assert hosts.Hosts(str(tmp_path / "hosts")).loopback(given) == expected


def test_a_file_of_hosts_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    known = hosts.Hosts(str(path))
    assert known.loopback("localhost") == {V4, V6}
    path.write_text("127.0.0.1 localhost\n")
    assert known.loopback("localhost") == {V4}
    path.write_text("# none\n")
    assert known.loopback("localhost") == {V4, V6}


def test_localhost_has_both_addresses_in_the_systems_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "hosts", hosts.Hosts("/nowhere"))
    found = [each[4][0] for each in socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)]
    order = [each[4][0] for each in std.getaddrinfo(None, 80, type=socket.SOCK_STREAM)]
    assert found == [each for each in order if each == V4 or hosts.can_reach_v6()]
    monkeypatch.setattr(names, "can_reach_v6", lambda: False)
    assert [each[4][0] for each in socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)] == [V4]
    six = socket.getaddrinfo("localhost", 80, socket.AF_INET6, socket.SOCK_STREAM)
    assert [each[4][0] for each in six] == [V6], "who asks for IPv6 gets it"


@pytest.mark.parametrize("call", ["getservbyname", "getservbyport", "getprotobyname"])
def test_services_are_looked_up_in_a_thread_once(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    seen: list[str] = []
    monkeypatch.setattr(_socket, call, spy_on(getattr(_socket, call), seen))
    calls: dict[str, list[tuple[Any, ...]]] = {
        "getservbyname": [("http",), ("http", "tcp"), ("domain", "udp")],
        "getservbyport": [(80,), (80, "tcp"), (53, "udp")],
        "getprotobyname": [("tcp",), ("udp",)],
    }
    given = calls[call]
    for args in given * 3:
        assert getattr(socket, call)(*args) == getattr(std, call)(*args)
    ours = [name for name in seen if name.startswith("fibers-worker")]
    assert len(ours) == len(given)
    with pytest.raises(OSError, match="not found"):
        getattr(socket, call)(*{"getservbyport": (1, "udp")}.get(call, ("nonsense",)))


def test_a_service_needs_no_thread_once_it_is_known(lookups: list[str]) -> None:
    expected = std.getaddrinfo("127.0.0.1", "https", type=socket.SOCK_STREAM)
    socket.getaddrinfo("127.0.0.1", "https", type=socket.SOCK_STREAM)
    del lookups[:]
    for service in ("https", b"https"):
        assert socket.getaddrinfo("127.0.0.1", service, type=socket.SOCK_STREAM) == expected
    assert not any(name.startswith("fibers-worker") for name in lookups)
    with pytest.raises(socket.gaierror) as caught:
        socket.getaddrinfo("127.0.0.1", "nonsense", type=socket.SOCK_STREAM)
    assert caught.value.errno == socket.EAI_SERVICE


@pytest.mark.parametrize("call", ["gethostbyname", "gethostbyname_ex"])
def test_results_are_the_standard_librarys(call: str) -> None:
    for name in ("localhost", HERE, "127.0.0.1"):
        assert getattr(socket, call)(name) == getattr(std, call)(name)


def test_others_run_while_one_fiber_looks_a_name_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def slow(*args: Any) -> Any:
        release.wait(5)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]

    monkeypatch.setattr(_socket, "getaddrinfo", slow)
    lookup = fibers.spawn(socket.getaddrinfo, "slow.example", 80)
    for _ in range(3):
        fibers.sleep(0.001)
    assert not lookup.done()
    release.set()
    assert lookup.result(5)[0][4] == ("127.0.0.1", 80)


def test_a_cancelled_look_up_stops_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    release, started = threading.Event(), threading.Event()

    def slow(*args: Any) -> Any:
        started.set()
        release.wait(5)
        return []

    monkeypatch.setattr(_socket, "getaddrinfo", slow)
    lookup = fibers.spawn(socket.getaddrinfo, "slow.example", 80)
    threads.to_thread(started.wait, 5)
    lookup.cancel()
    with pytest.raises(fibers.FiberCancelled):
        lookup.result(1)
    release.set()


def test_many_look_ups_at_once_share_a_bounded_number_of_threads() -> None:
    lookups = [fibers.spawn(socket.getaddrinfo, HERE, port) for port in range(1, 201)]
    for port, lookup in enumerate(lookups, 1):
        assert lookup.result(20)[0][4][1] == port
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("fibers-worker")]
    assert len(workers) <= threads.MAX_WORKERS + sharing.MAX_LOOKUPS


def test_a_failed_look_up_says_so_in_the_fiber_that_asked() -> None:
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("no-such-host.invalid", 80)


# -- sharing --------------------------------------------------------------------------------------------------------


class Resolver:
    """Stands for the C library's getaddrinfo: answers when it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.asked = threading.Semaphore(0)
        self.answer = threading.Event()
        self.error: BaseException | None = None

    def __call__(self, *args: Any) -> Any:
        self.calls.append(args)
        self.asked.release()
        assert self.answer.wait(20)
        if self.error is not None:
            raise self.error
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", args[1]))]

    def wait_asked(self) -> None:
        assert threads.to_thread(self.asked.acquire, timeout=20)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver()
    monkeypatch.setattr(_socket, "getaddrinfo", made)
    yield made
    made.answer.set()


def waiting(count: int) -> None:
    """Until so many fibers wait for a look-up that is under way."""
    while sum(len(each.queue._waiting) for each in list(sharing._under_way.values())) != count:
        fibers.sleep(0.001)


def test_who_asks_the_same_at_the_same_time_shares_a_look_up(resolver: Resolver) -> None:
    asking = [fibers.spawn(socket.getaddrinfo, "shared.test", 80) for _ in range(20)]
    other = fibers.spawn(socket.getaddrinfo, "shared.test", 443)
    waiting(21)
    resolver.answer.set()
    answers = [each.result(20) for each in asking]
    assert [each[0][4] for each in answers] == [("192.0.2.1", 80)] * 20
    assert len({id(each) for each in answers}) == 20, "each list is the caller's own"
    assert other.result(20)[0][4] == ("192.0.2.1", 443)
    assert sorted(call[1] for call in resolver.calls) == [80, 443]
    assert sharing._under_way == {}
    socket.getaddrinfo("shared.test", 80)
    assert len(resolver.calls) == 3, "an answer is not kept"


def test_fibers_of_several_threads_share_it(resolver: Resolver) -> None:
    with ThreadPoolExecutor(4) as executor:
        futures = [executor.submit(socket.getaddrinfo, "shared.test", 80) for _ in range(4)]
        asking = fibers.spawn(socket.getaddrinfo, "shared.test", 80)
        waiting(5)
        resolver.answer.set()
        assert asking.result(20) == fibers.wait_future(futures[0])
        assert all(fibers.wait_future(each)[0][4] == ("192.0.2.1", 80) for each in futures)
    assert len(resolver.calls) == 1


def test_one_that_is_cancelled_leaves_the_others_their_look_up(resolver: Resolver) -> None:
    first, second = (fibers.spawn(socket.getaddrinfo, "shared.test", 80) for _ in range(2))
    resolver.wait_asked()
    waiting(2)
    first.cancel()
    with pytest.raises(fibers.FiberCancelled):
        first.result(20)
    third = fibers.spawn(socket.getaddrinfo, "shared.test", 80)
    waiting(2)
    resolver.answer.set()
    assert second.result(20) == third.result(20)
    assert len(resolver.calls) == 1


@pytest.mark.parametrize("end", ["cancel", "kill", "deadline"])
def test_a_look_up_that_all_have_given_up_is_not_joined(resolver: Resolver, end: str) -> None:
    """It is likely to be stuck; a second try is not to get stuck in it."""
    if end == "deadline":
        with fibers.move_on_after(0.01) as scope:
            socket.getaddrinfo("stuck.test", 80)
        assert scope.cancelled_caught
    else:
        stuck = fibers.spawn(socket.getaddrinfo, "stuck.test", 80)
        resolver.wait_asked()
        getattr(stuck, end)()
        with pytest.raises(fibers.FiberCancelled):
            stuck.result(20)
        resolver.asked.release()
    assert sharing._under_way == {}
    resolver.wait_asked()
    again = fibers.spawn(socket.getaddrinfo, "stuck.test", 80)
    resolver.wait_asked()
    resolver.answer.set()
    assert again.result(20)[0][4] == ("192.0.2.1", 80)
    assert len(resolver.calls) == 2


def test_a_look_up_that_no_thread_has_begun_is_taken_back(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_pool", WorkerPool(1, "fibers-worker-one-", 0.01))
    busy = fibers.spawn(socket.getaddrinfo, "busy.test", 80)
    resolver.wait_asked()
    queued = fibers.spawn(socket.getaddrinfo, "queued.test", 80)
    waiting(2)
    queued.cancel()
    with pytest.raises(fibers.FiberCancelled):
        queued.result(20)
    resolver.answer.set()
    busy.result(20)
    assert len(resolver.calls) == 1


def test_who_comes_for_a_look_up_that_is_being_taken_back_asks_anew(resolver: Resolver) -> None:
    """Another thread has found it just before its last waiter has left."""
    asked: Any = (_socket.getaddrinfo, "late.test", 80, 0, 0, 0, 0)
    sharing._under_way[asked] = leaving = sharing._Lookup(asked)
    late = fibers.spawn(socket.getaddrinfo, "late.test", 80)
    waiting(1)
    leaving.take_back()
    resolver.wait_asked()
    resolver.answer.set()
    assert late.result(20)[0][4] == ("192.0.2.1", 80)


def test_an_error_is_a_new_object_for_each(resolver: Resolver) -> None:
    resolver.error = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    asking = [fibers.spawn(socket.getaddrinfo, "shared.test", 80) for _ in range(3)]
    waiting(3)
    resolver.answer.set()
    errors = [each.exception(20) for each in asking]
    assert len({id(each) for each in errors}) == 3
    for error in errors:
        assert isinstance(error, socket.gaierror)
        assert (error.errno, error.args) == (socket.EAI_AGAIN, resolver.error.args)
    assert len(resolver.calls) == 1


def test_slow_look_ups_hold_up_no_other_calls(resolver: Resolver) -> None:
    """The threads are not those of `to_thread`, and there are as many as are needed."""
    asking = [fibers.spawn(socket.getaddrinfo, "slow.test", port) for port in range(1, sharing.MAX_LOOKUPS + 11)]
    for _ in range(sharing.MAX_LOOKUPS):
        resolver.wait_asked()
    assert len(resolver.calls) == sharing.MAX_LOOKUPS
    assert fibers.to_thread(int, "7") == 7
    resolver.answer.set()
    for port, each in enumerate(asking, 1):
        assert each.result(20)[0][4][1] == port


def test_a_storm_of_look_ups_and_cancellations_in_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads of a pool for four that ask, give up, and ask again: everybody gets the right answer or is cancelled."""
    pool = WorkerPool(2, "fibers-worker-few-", 0.01)
    monkeypatch.setattr(sharing, "_pool", pool)

    def answer(host: str, port: int, *_: Any) -> Any:
        if port == 3:
            raise socket.gaierror(socket.EAI_NONAME, host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, host, ("192.0.2.1", port))]

    monkeypatch.setattr(_socket, "getaddrinfo", answer)
    rounds = scaled(2000, least=40)

    def ask(host: str, port: int) -> str:
        try:
            return str(socket.getaddrinfo(host, port)[0][3:])
        except socket.gaierror as error:
            return str((error.args[1], "unknown"))

    def storm(seed: int) -> int:
        rng = random.Random(seed)
        answered = 0
        for _ in range(rounds):
            given = [(f"{rng.randrange(3)}.test", rng.randrange(4)) for _ in range(rng.randrange(1, 6))]
            asking = [fibers.spawn(ask, *each) for each in given]
            for _ in range(rng.randrange(3)):
                fibers.yield_now()
            for each in asking:
                if rng.random() < 0.5:
                    rng.choice([each.cancel, each.kill])()
            for (host, port), each in zip(given, asking, strict=True):
                error = each.exception(60)
                if error is None:
                    assert each.result() == str((host, "unknown" if port == 3 else ("192.0.2.1", port)))
                    answered += 1
                else:
                    assert isinstance(error, fibers.FiberCancelled)
        return answered

    with ThreadPoolExecutor(4) as executor:
        futures = [executor.submit(fibers.run, storm, SEED + number) for number in range(4)]
        assert sum(fibers.wait_future(each) for each in futures) > rounds
    assert sharing._under_way == {}


def test_without_threads_it_is_an_error_for_all(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("can't start new thread")

    pool = WorkerPool(4, "fibers-worker-none-", 0.01)
    monkeypatch.setattr(sharing, "_pool", pool)
    monkeypatch.setattr("fibers.threads.workers.start_new_thread", refuse)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="can't start new thread"):
            socket.getaddrinfo("any.test", 80)
    assert sharing._under_way == {}


def test_a_forked_child_looks_up_for_itself() -> None:
    """The look-up that is under way belongs to a thread that the child does not have."""
    child = run_python(
        "-c",
        """
import _socket, os, threading, fibers
from fibers.io import socket
parent, answer = os.getpid(), threading.Event()
asked = threading.Event()
def slow(*args):
    asked.set()
    if os.getpid() == parent:
        answer.wait(20)
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]
_socket.getaddrinfo = slow
waiting = fibers.spawn(socket.getaddrinfo, "x.test", 80)
fibers.to_thread(asked.wait)
if (pid := os.fork()) == 0:
    print("child", socket.getaddrinfo("x.test", 80)[0][4], flush=True)
    os._exit(0)
os.waitpid(pid, 0)
answer.set()
print("parent", waiting.result(20)[0][4])
""",
    )
    assert child.stdout.splitlines() == ["child ('192.0.2.1', 80)", "parent ('192.0.2.1', 80)"], child.stderr


@pytest.mark.parametrize(
    ("call", "args"),
    [
        ("getaddrinfo", ([], 80)),
        ("getaddrinfo", ("x", 1.5)),
        ("getaddrinfo", ("x", [])),
        ("getaddrinfo", ("x", 80, "4")),
        ("getaddrinfo", ("localhost", 1 << 70)),
        ("getaddrinfo", ("a" * 70 + ".test", 80)),
        ("getaddrinfo", ("x\0y", 80)),
        ("gethostbyname", (5,)),
        ("gethostbyname", ("a" * 70 + ".test",)),
        ("gethostbyname_ex", (None,)),
        ("gethostbyaddr", (5,)),
        ("getnameinfo", ("127.0.0.1", 0)),
        ("getnameinfo", (("127.0.0.1",), 0)),
        ("getnameinfo", (("name.invalid", 80), 0)),
        ("getnameinfo", (("127.0.0.1", 80), "x")),
        ("getservbyname", ()),
        ("getservbyname", (5,)),
        ("getservbyport", (70000,)),
        ("getprotobyname", (5,)),
    ],
)
def test_bad_arguments_get_the_standard_librarys_errors(call: str, args: tuple[Any, ...]) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011 - whatever it is
        getattr(std, call)(*args)
    with pytest.raises(type(expected.value)) as caught:
        getattr(socket, call)(*args)
    assert getattr(caught.value, "errno", None) == getattr(expected.value, "errno", None)
    assert not isinstance(expected.value, OSError) or caught.value.args == expected.value.args
