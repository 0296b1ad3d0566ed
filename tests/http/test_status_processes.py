"""The status page of many processes: one answers, and tells of all, also of those that are no more."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.browser import look_at
from support.http_serving import answer, request
from support.once import once
from support.prefork import begun, stop, until_gone
from support.server_program import LIMIT, Program

from fibers.eventloop import EventLoop
from fibers.http.accesslog import AccessLog
from fibers.http.census import CLOSING, HEAD, KEEP_ALIVE, NAMES, RUNNING
from fibers.http.published import ACCEPTED_TOTAL, BYTES_TOTAL, COUNTERS, REQUESTS_TOTAL, PublishedCensus
from fibers.io import Stream, socket
from fibers.server.scoreboard import LEAVING, SERVING, STARTING, Scoreboard

CODE = """
from fibers.http import HttpServer, Server
app = Server()
app.otherwise(lambda request: str(os.getpid()))
def begin():
    say(server.address[1], os.getpid())
server = HttpServer(
    app, ("127.0.0.1", 0), processes=3, threads=2, status="/server-status", on_worker_start=begin, last_idle=0.0
)
server.serve_forever()
"""


class Site:
    """What a client of the program sees."""

    def __init__(self, address: Any) -> None:
        self.address = address
        self.asked = 0

    def connect(self) -> Stream:
        return Stream(socket.create_connection(self.address, timeout=LIMIT))

    def ask(self, path: str, client: Stream | None = None) -> str:
        self.asked += 1
        if client is not None:
            client.write_all(request(path))
            return answer(client).body.decode()
        with self.connect() as client:
            client.write_all(request(path, Connection="close"))
            return answer(client).body.decode()

    def auto(self) -> dict[str, str]:
        return dict(line.split(": ", 1) for line in self.ask("/server-status?auto").splitlines())

    def until(self, holds: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        """Ask until that is true: processes begin and end in their own time."""
        while not holds(told := self.auto()):
            pass
        return told


@once
def test_whoever_answers_tells_of_all_and_no_count_is_lost(tmp_path: Path) -> None:
    with Program(tmp_path, CODE) as program:
        address, workers = begun(program, 3)
        program.told("READY=1")
        site = Site(address)
        clients = [site.connect() for _ in range(24)]
        serves = [int(site.ask("/", client)) for client in clients]
        assert set(serves) == workers
        told = site.until(lambda told: told["ConnsTotal"] == "25")  # before, a client's end was not noticed yet
        assert (told["Processes"], told["Loops"]) == ("3", "6")
        assert (told["ConnsKeepAlive"], told["BusyWorkers"]) == ("24", "1")
        assert told["Total Accesses"] == str(site.asked)
        for pid in workers:
            assert told[f"Process {pid} State"] == "serving"
            assert float(told[f"Process {pid} CPUSeconds"]) > 0
        connections = {pid: int(told[f"Process {pid} ConnsTotal"]) for pid in workers}
        assert sum(connections.values()) == 25
        assert all(connections[pid] - serves.count(pid) in (0, 1) for pid in workers)

        text = site.ask("/server-status?prometheus")
        idle = re.findall(r'^fibers_http_connections{pid="(\d+)",loop="\d+",state="keep-alive"} (\d+)$', text, re.M)
        assert sum(int(count) for _, count in idle) == 24
        assert {int(pid) for pid, _ in idle} == workers
        assert f"\nfibers_http_requests_total {site.asked}\n" in text

        victim = serves[0]  # one that is killed has its counts all the same
        os.kill(victim, signal.SIGKILL)
        until_gone(victim)
        _, (heir,) = begun(program, 1)
        told = site.until(lambda told: told.get(f"Process {heir} State") == "serving")
        assert (told["Processes"], told["ProcessesEnded"]) == ("3", "1")
        assert told["Total Accesses"] == str(site.asked)
        assert f"Process {victim} State" not in told
        assert int(told["ConnsKeepAlive"]) == 24 - serves.count(victim)
        cpu = float(told["CPUSeconds"])
        _look(address, tmp_path, told)
        site.asked += 1

        program.signal(signal.SIGHUP)  # and so have those that are replaced
        program.told("RELOADING=1")
        program.told("READY=1")
        told = site.until(lambda told: told["ProcessesEnded"] == "4")
        assert told["Processes"] == "3"
        assert told["Total Accesses"] == str(site.asked)
        assert float(told["CPUSeconds"]) > cpu
        for client in clients:
            client.close()
        stop(program)


def _look(address: Any, folder: Path, told: dict[str, str]) -> None:
    """A person sees the same."""
    shown = look_at(f"http://127.0.0.1:{address[1]}/server-status", folder, "server-status-processes", 1000, 1500)
    assert "3 processes, 6 loops" in shown
    pids = [key.split()[1] for key in told if key.endswith(" State")]
    assert len(pids) == 3
    for pid in pids:
        assert re.search(rf" {pid} serving \d+ ", shown), shown
    assert re.search(r" ended 1 process 0 0 0 \d+ ", shown), shown
    assert re.search(rf"keep-alive is idle between two requests {told['ConnsKeepAlive']} ", shown), shown


# -- the scoreboard


def never() -> None:
    raise AssertionError("nothing is being written")


def test_a_scoreboard_keeps_what_the_ended_have_counted() -> None:
    board = Scoreboard(counters=2, loops=2, places=2)
    first, second = (_take(board, pid) for pid in (10, 20))
    assert board.claim() == -1  # it counts for itself alone
    board.inhabit(-1)
    board.row()[1] = 5
    board.inhabit(first)
    for row, counts in ((board.row(), (1, 2)), (board.row(), (10, 20))):
        row[1], row[2] = counts
    board.row()[1] = 7  # of a loop too many: nobody sees it
    board.mark(first, SERVING)
    entries, ended = board.read(never)
    assert [(entry.pid, entry.state, entry.rows) for entry in entries] == [
        (10, SERVING, [[1, 2], [10, 20]]),
        (20, STARTING, [[0, 0], [0, 0]]),
    ]
    assert ended == (0, 0.0, [0, 0])
    board.release(first, 1.5)
    board.mark(second, LEAVING)
    entries, ended = board.read(never)
    assert [(entry.pid, entry.state) for entry in entries] == [(20, LEAVING)]
    assert ended == (1, 1.5, [11, 22])
    assert _take(board, 30) == first
    assert board.read(never)[0][0].rows == [[0, 0], [0, 0]]


def _take(board: Scoreboard, pid: int) -> int:
    place = board.claim()
    board.assign(place, pid)
    return place


def test_a_row_that_is_being_written_is_read_again_and_in_the_end_as_it_is() -> None:
    board = Scoreboard(counters=2, loops=1)
    place = _take(board, 10)
    board.inhabit(place)
    row = board.row()
    row[0], row[1] = 1, 5  # in the midst of writing
    waits = 0

    def finish() -> None:
        nonlocal waits
        waits += 1
        row[0], row[2] = 2, 6

    assert board.read(finish)[0][0].rows == [[5, 6]]
    assert waits == 1
    row[0] = 3  # killed here
    assert board.read(lambda: None)[0][0].rows == [[5, 6]]
    board.release(place, 0.0)
    assert board.read(never)[1].counters == [5, 6]


class Member:
    state = 0

    def timed_out(self) -> None:
        raise AssertionError("nobody's time is limited")


def test_what_is_published_is_what_the_books_say(loop: EventLoop) -> None:
    board = Scoreboard(counters=COUNTERS, loops=1)
    board.inhabit(_take(board, 10))
    books = PublishedCensus(loop, {}, board.row())
    members = [Member() for _ in range(30)]
    for at, member in enumerate(members):
        books.enter(member, HEAD)
        books.requests_total += 1
        books.bytes_total += at
        books.change(member, RUNNING)
        books.change(member, (KEEP_ALIVE, CLOSING, RUNNING)[at % 3])
        if at % 2:
            assert books.leave(member)
            assert not books.leave(member)
        ((row,),) = [entry.rows for entry in board.read(never)[0]]
        assert row[: len(NAMES)] == [books.count(state) for state in range(len(NAMES))]
        assert (row[ACCEPTED_TOTAL], row[REQUESTS_TOTAL], row[BYTES_TOTAL]) == (at + 1, at + 1, sum(range(at + 1)))


def test_a_log_tells_of_what_it_has_dropped() -> None:
    told: list[int] = []
    log = AccessLog(lambda line: None)
    log.on_drop = told.append
    log.close()
    log.note(None, ("", 0), 0.0, 1, False)  # type: ignore[arg-type] # it is not looked at
    assert told == [1]
