"""Completion against cancellation, kill and timeout, at random: nothing is lost, nobody is resumed twice.

Each game has workers that do one thing over and over, under random timeouts, and a master that lets them, kills them,
cancels the scope that they are in, all within the same instant and in random order. In the end it must add up: each permit
was taken as often as the callers say, each item was received exactly once or is still there.

In the second half the workers are in several threads, with plain threads among them, and so are the masters.
"""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.scale import SEED, scaled
from support.settling import Oops

import fibers
import fibers.sync.queue
import fibers.sync.simplequeue
import fibers.sync.waiting
from fibers.core.fiber import Fiber
from fibers.core.waitqueue import WaitQueue

#: What a worker's call came to when it came to nothing.
NOTHING = object()


@pytest.fixture(autouse=True)
def _no_wake_up_for_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Who is woken has been given something, or was interrupted; `again` is for those who found that they need not wait."""
    real = fibers.sync.waiting.again
    faults: list[str] = []

    def again(scheduler: Any, me: Fiber[Any], queue: WaitQueue, giver: Any, deadline: Any) -> Any:
        if queue.holds(me):
            faults.append(f"{me!r} was resumed while it waited for {giver!r}")
        return real(scheduler, me, queue, giver, deadline)

    for module in (fibers.sync.waiting, fibers.sync.queue, fibers.sync.simplequeue):
        monkeypatch.setattr(module, "again", again)
    yield
    assert faults == []


class Game:
    """Keeps the books of one primitive."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.offered: list[Any] = []
        self.lock = threading.Lock()

    def take(self, timeout: float | None) -> object:
        """In a worker: wait, and return what was got, or NOTHING."""
        raise NotImplementedError

    def offer(self) -> None:
        """In a master: let one worker go on. Never waits."""
        raise NotImplementedError

    def verify(self) -> None:
        """Everything has ended: does it add up?"""
        raise NotImplementedError


class Permits(Game):
    def __init__(self, bounded: bool = False) -> None:
        super().__init__()
        self.semaphore = fibers.Semaphore(0)

    def take(self, timeout: float | None) -> object:
        return 1 if self.semaphore.acquire(timeout=timeout) else NOTHING

    def offer(self) -> None:
        self.offered.append(1)
        self.semaphore.release()

    def verify(self) -> None:
        assert self.semaphore._value == len(self.offered) - len(self.taken)
        assert not self.semaphore._line


class Locked(Game):
    """The master holds the lock and lets go of it; a worker that gets it gives it back to the master."""

    def __init__(self) -> None:
        super().__init__()
        self.mutex = fibers.Lock()
        self.mutex.acquire()
        self.inside = 0

    def take(self, timeout: float | None) -> object:
        if not self.mutex.acquire(timeout=-1 if timeout is None else timeout):
            return NOTHING
        self.inside += 1
        assert self.inside == 1
        self.inside -= 1
        return 1  # and it stays locked

    def offer(self) -> None:
        # Only if it is locked: a lock that nobody wanted stays free, and that counts as offered.
        with self.lock:
            if self.mutex.locked():
                self.offered.append(1)
                self.mutex.release()

    def verify(self) -> None:
        assert len(self.offered) - len(self.taken) == (0 if self.mutex.locked() else 1)
        assert not self.mutex._line


class Items(Game):
    """Each item is a number of its own."""

    def __init__(self, queue: Any) -> None:
        super().__init__()
        self.queue = queue
        self.number = 0

    def take(self, timeout: float | None) -> object:
        try:
            return self.queue.get(timeout=timeout)
        except fibers.Empty:
            return NOTHING

    def offer(self) -> None:
        with self.lock:
            self.number += 1
            number = self.number
        self.queue.put(number)
        self.offered.append(number)

    def verify(self) -> None:
        left = [self.queue.get_nowait() for _ in range(self.queue.qsize())]
        assert sorted(self.taken + left) == sorted(self.offered)
        assert not self.queue._getting


class Places(Game):
    """The other way round: workers put into a full queue, the master takes out."""

    def __init__(self, queue: Any) -> None:
        super().__init__()
        self.queue = queue
        self.number = 0

    def take(self, timeout: float | None) -> object:
        with self.lock:
            self.number += 1
            number = self.number
        try:
            self.queue.put(number, timeout=timeout)
        except fibers.Full:
            return NOTHING
        return number

    def offer(self) -> None:
        try:
            self.offered.append(self.queue.get_nowait())
        except fibers.Empty:
            pass

    def verify(self) -> None:
        left = [self.queue.get_nowait() for _ in range(self.queue.qsize())]
        assert sorted(self.offered + left) == sorted(self.taken)
        assert self.queue.unfinished_tasks == len(self.taken)
        assert not self.queue._putting
        if self.queue._plain:
            assert self.queue._room == self.queue.maxsize


class Notified(Game):
    def __init__(self) -> None:
        super().__init__()
        self.condition = fibers.Condition(fibers.Lock())
        self.count = 0

    def take(self, timeout: float | None) -> object:
        with self.condition:
            if not self.condition.wait_for(lambda: self.count, timeout):
                return NOTHING
            self.count -= 1
            return 1

    def offer(self) -> None:
        with self.condition:
            self.offered.append(1)
            self.count += 1
            self.condition.notify()

    def verify(self) -> None:
        assert self.count == len(self.offered) - len(self.taken)
        assert not self.condition._lock.locked()
        assert not len(self.condition._waiting)


GAMES: dict[str, Callable[[], Game]] = {
    "Lock": Locked,
    "Semaphore": Permits,
    "Condition": Notified,
    "Queue, getting": lambda: Items(fibers.Queue()),
    "SimpleQueue, getting": lambda: Items(fibers.SimpleQueue()),
    "PriorityQueue, getting": lambda: Items(fibers.PriorityQueue()),
    "Queue, putting": lambda: Places(fibers.Queue(2)),
    "LifoQueue, putting": lambda: Places(fibers.LifoQueue(1)),
    "PriorityQueue, putting": lambda: Places(fibers.PriorityQueue(2)),
}
every_game = pytest.mark.parametrize("name", GAMES)
#: Rounds of each game in one thread, so that all of them together are a million.
ROUNDS = scaled(1_000_000 // len(GAMES) + 1, least=500)


class Team:
    """Workers in the calling thread. What they get goes into the game's books."""

    def __init__(self, game: Game, size: int, seed: int) -> None:
        self.game = game
        self.over = False
        self.scopes: list[fibers.CancelScope] = [fibers.CancelScope() for _ in range(size)]
        self.fibers = [fibers.spawn(self.work, number, random.Random(seed + number)) for number in range(size)]

    def work(self, number: int, luck: random.Random) -> None:
        while not self.over:
            self.scopes[number] = scope = fibers.CancelScope()
            timeout = luck.choice((None, None, 1e-9, 0.0001))
            got = NOTHING
            try:
                with scope:
                    got = self.game.take(timeout)
            except Oops:
                pass
            if got is not NOTHING:
                self.game.taken.append(got)
            if luck.random() < 0.1 or got is NOTHING:
                try:
                    fibers.yield_now()
                except Oops:
                    pass

    def disturb(self, luck: random.Random) -> None:
        number = luck.randrange(len(self.fibers))
        if luck.random() < 0.5:
            self.fibers[number].kill(Oops)
        else:
            self.scopes[number].cancel()

    def end(self) -> None:
        self.over = True
        while not all(fiber.done() for fiber in self.fibers):
            for scope in self.scopes:
                scope.cancel()
            fibers.yield_now()
        for fiber in self.fibers:
            assert isinstance(fiber.exception(), (Oops, type(None)))


@every_game
def test_in_one_thread(name: str) -> None:
    game, luck = GAMES[name](), random.Random(SEED)
    team = Team(game, 4, SEED)
    fibers.yield_now()
    for _ in range(ROUNDS):
        steps = [game.offer, lambda: team.disturb(luck), lambda: team.disturb(luck), fibers.yield_now]
        luck.shuffle(steps)
        for step in steps[: luck.randint(1, 4)]:
            step()
    team.end()
    game.verify()
    assert len(game.taken) > ROUNDS / 20


def in_threads(game: Game, rounds: int) -> None:
    """Two threads with fibers, one plain thread that works, one plain thread that is a master; and this one, both."""
    teams: list[Team] = []
    started = threading.Barrier(4)
    over = threading.Event()

    def players(seed: int) -> None:
        luck = random.Random(seed)
        team = Team(game, 3, seed)
        teams.append(team)
        fibers.yield_now()
        started.wait()
        for _ in range(rounds):
            steps = [game.offer, lambda: luck.choice(teams).disturb(luck), fibers.yield_now]
            luck.shuffle(steps)
            for step in steps[: luck.randint(1, 3)]:
                try:
                    step()
                except Oops:
                    pass
        while not over.is_set():
            fibers.sleep(0.0001)
        team.end()

    def plain_worker() -> None:
        started.wait()
        while not over.is_set():
            got = game.take(0.001)
            if got is not NOTHING:
                game.taken.append(got)

    def plain_master(seed: int) -> None:
        luck = random.Random(seed)
        started.wait()
        for _ in range(rounds):
            game.offer()
            luck.choice(teams).disturb(luck)
        over.set()

    with ThreadPoolExecutor(4) as pool:
        ended = [
            pool.submit(fibers.run, players, SEED + 100),
            pool.submit(fibers.run, players, SEED + 200),
            pool.submit(plain_worker),
            pool.submit(plain_master, SEED + 300),
        ]
        for each in ended:
            each.result(100)
    game.verify()


@every_game
def test_in_threads(name: str) -> None:
    in_threads(GAMES[name](), scaled(20_000, least=300))


def test_an_event_that_is_set_and_cleared_all_the_time() -> None:
    """Whoever waits while it is set goes on; nobody else does."""
    event, woken, luck = fibers.Event(), [0], random.Random(SEED)

    def worker() -> None:
        while True:
            if event.wait(luck.choice((None, 0.0001))):
                woken[0] += 1
                fibers.yield_now()

    workers = [fibers.spawn(worker) for _ in range(5)]
    for _ in range(scaled(50_000, least=500)):
        event.clear()
        fibers.yield_now()
        before = woken[0]
        fibers.yield_now()
        assert woken[0] == before
        waiting = len(event._waiting)
        event.set()
        assert len(event._waiting) == 0
        fibers.yield_now()
        assert woken[0] - before >= waiting
    for fiber in workers:
        fiber.cancel()
        fiber.join(5)
