"""The appender under thousands of random schedules: a simulated shell, a server that stores, and callers.

The server is the truth: it stores what is appended, once where there is an idempotency key, unless another transaction
is just about to; it refuses some entries for good and whole statements on a whim, and loses the connection before or
after it has committed. Callers submit, give up and are told; outages come and time passes. What is checked: nobody is
told what is not so, nothing is stored twice, and all are told in the end. A failure names its seed;
PGPUBSUB_SIM_SEED=that PGPUBSUB_SIM_SCHEDULES=1 repeats it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from pgpubsub import Closed, ConnectionLost, SendTimeout, SendUncertain, ServerRefused
from pgpubsub.core import grouping
from pgpubsub.core.appender import Appender, Call
from pgpubsub.core.entries import NewEntry, new_entry
from pgpubsub.errors import PubSubError
from tests.sim.simulation import Simulation, schedules

SCHEDULES = schedules(2000)

TIMEOUT = 10.0
ENTRIES, ENTRIES_ONCE, CHARACTERS = 8, 3, 300
"""Of a batch; small, so that they are met."""
POISON = "☠"
"""What this server never stores."""
KEYS = ("one", "two", "three")

seen: Counter[str] = Counter()
"""What has happened in all schedules: a simulation proves nothing of what it never meets."""


class Caller(Call):
    """Somebody who waits, and what is true of what they want to append."""

    __slots__ = ("deadline", "left", "number", "on_told", "over", "stored")

    def __init__(
        self,
        number: int,
        entries: Sequence[NewEntry],
        deadline: float,
        on_told: Callable[[Caller, PubSubError | None], None],
    ) -> None:
        super().__init__(entries)
        self.number = number
        self.deadline = deadline
        self.on_told = on_told
        self.over = False  # told, or withdrawn
        self.left = False  # to be withdrawn, as the shell knows already
        self.stored = 0

    def tell(self, error: PubSubError | None) -> None:
        self.on_told(self, error)

    @property
    def called_off(self) -> bool:
        return self.told or self.left


class Schedule:
    """One random life of an appender."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = self.random.uniform(0, 1000)
        self.appender = Appender(TIMEOUT)
        self.callers: list[Caller] = []
        self.flying: tuple[Caller, ...] = ()
        self.aside: list[Collection[grouping.Call[NewEntry]]] = []
        self.keys: dict[str, int] = {}
        """Those that are stored, with the ids of their entries."""
        self.others: set[str] = set()
        """Those that other transactions are about to store."""
        self.next_id = 1
        self.outcome = ""
        self.error: PubSubError = ConnectionLost("not connected yet")
        self.connected = self.chance(0.8)
        self.closed = False
        self.calm = False
        self.whimsical = self.chance(0.3)
        self.newest = -1  # number of the last call stored that was never sent again

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def run(self) -> None:
        happenings: list[Callable[[], object]] = [
            self.answer,
            self.submit,
            self.leave,
            self.withdraw,
            self.pass_time,
            self.toggle,
            self.begin_other,
            self.end_other,
            self.resume,
        ]
        weights = [self.random.choice((2, 4, 8)), 8, 0.5, 1, 2, 0.3, 1, 1, 1]
        for _ in range(self.random.randrange(5, 80)):
            self.random.choices(happenings, weights)[0]()
            self.check()
        if self.chance(0.1):
            self.fail()
            self.answer()
        self.come_to_rest()

    def come_to_rest(self) -> None:
        self.calm = self.connected = True
        while self.others:
            self.end_other()
        for _ in range(4 * len(self.callers) + 1):
            while self.aside:
                self.resume()
            self.pump()
            if not self.flying:
                break
            self.answer()
            self.check()
        else:
            raise AssertionError("it does not come to rest")
        assert all(caller.over or caller.left for caller in self.callers), "somebody was told nothing"
        assert self.appender.next_batch() is None

    # -- what the callers do

    def submit(self) -> None:
        number = len(self.callers)
        if self.chance(0.5):
            entries = [self.entry(number, 0, self.random.choice(KEYS))]
        else:
            count = self.random.choice((1, 1, 2, ENTRIES - 1, ENTRIES + 2))
            entries = [self.entry(number, place, None) for place in range(count)]
        caller = Caller(number, entries, self.now + TIMEOUT, self.on_told)
        self.callers.append(caller)
        self.appender.submit(caller, self.now)
        self.pump()

    def entry(self, number: int, place: int, key: str | None) -> NewEntry:
        rest = POISON if self.chance(0.03) else "x" * self.random.choice((0, 0, 0, CHARACTERS // 3, CHARACTERS))
        return new_entry("orders", f"{number}.{place} {rest}", 10**6, idempotency_key=key)

    def leave(self) -> None:
        for caller in self.somebody():
            caller.left = True

    def withdraw(self) -> None:
        left = [caller for caller in self.callers if caller.left and not caller.over]
        for caller in left or self.somebody():
            seen["withdrawn in flight" if caller in self.flying else "withdrawn before"] += 1
            caller.over = True
            self.appender.withdraw(caller)

    def somebody(self) -> list[Caller]:
        candidates = [caller for caller in self.callers[-10:] if not caller.called_off]
        return [self.random.choice(candidates)] if candidates else []

    def on_told(self, caller: Caller, error: PubSubError | None) -> None:
        """What `caller` is told is true, and the first that it is told."""
        assert not caller.over, "told twice, or after it was withdrawn"
        caller.over = True
        count, key = len(caller.items), caller.items[0].idempotency_key
        match error:
            case None:
                assert self.outcome == "stored"
                assert len(caller.returned) == count
                if key is None:
                    assert caller.stored == count
                else:
                    assert caller.returned[0] == self.keys[key], "whoever stored it, it is there, under this id"
                    seen["stored by another"] += not caller.stored
            case SendUncertain():
                assert caller.uncertain is not None
                assert key is None or self.closed or self.now >= caller.deadline or self.outcome == "refused", (
                    "it could be sent again"
                )
            case ServerRefused():
                assert not caller.stored
                assert error is self.error or error.__cause__ is self.error.__cause__
            case SendTimeout():
                assert self.now >= caller.deadline
                assert not caller.stored
            case _:
                assert isinstance(error, Closed)
                assert self.closed
                assert not caller.stored
        seen[f"told {type(error).__name__}"] += 1

    # -- what the shell does

    def pump(self) -> None:
        if not self.connected or self.flying:
            return
        batch = self.appender.next_batch()
        if batch is None:
            return
        flying = [call for call in batch.calls if isinstance(call, Caller)]
        keyed = {call.repeatable for call in flying}
        assert len(keyed) == 1, "entries with a key are not mixed with others"
        count = sum(len(call.items) for call in flying)
        assert len(flying) == 1 or count <= (ENTRIES_ONCE if keyed == {True} else ENTRIES)
        assert len(flying) == 1 or sum(entry.size for call in flying for entry in call.items) <= CHARACTERS
        assert not any(caller.over for caller in flying), "nobody waits for it"
        seen["several together"] += len(flying) > 1
        self.flying = tuple(flying)

    def pass_time(self) -> None:
        until = self.now + self.random.expovariate(0.3)
        while not self.chance(0.2) and (due := self.appender.next_expiry) is not None and due <= until:
            self.now = max(self.now, due)
            self.expire()
        self.now = until
        self.expire()

    def expire(self) -> None:
        self.appender.expire(self.now, "others are still being stored")
        due = self.appender.next_expiry
        assert due is None or due > self.now, "a shell that looks again at once looks for ever"

    def toggle(self) -> None:
        if self.connected and self.flying:
            self.lose(after=self.chance(0.5))
        self.connected = not self.connected
        self.pump()

    def resume(self) -> None:
        if self.aside:
            seen["resumed"] += 1
            self.appender.resume(self.aside.pop(0))
            self.appender.expire(self.now, "another transaction is about to store it")
            self.pump()

    def fail(self) -> None:
        self.closed = True
        self.appender.fail(Closed("closed"))
        assert self.appender.next_expiry is None

    # -- what the server does

    def begin_other(self) -> None:
        self.others.update({self.random.choice(KEYS)} - self.keys.keys())

    def end_other(self) -> None:
        """Another transaction commits, or rolls back."""
        if self.others:
            key = self.random.choice(sorted(self.others))
            self.others.discard(key)
            if self.chance(0.5):
                self.keys[key] = self.new_id()

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    def store(self) -> list[int | None]:
        """Commit, and return what the statement returns."""
        ids: list[int | None] = []
        for caller in self.flying:
            for entry in caller.items:
                key = entry.idempotency_key
                if key is None or (key not in self.keys and key not in self.others):
                    ids.append(self.new_id())
                    caller.stored += 1
                    assert key is not None or caller.stored <= len(caller.items), "stored twice"
                    if key is not None:
                        self.keys[key] = self.next_id - 1
                elif key in self.keys:
                    ids.append(self.keys[key])
                else:
                    seen["another is about to store it"] += 1
                    ids.append(None)
        return ids

    def answer(self) -> None:
        if not self.flying:
            return
        weights = [20, 5 * self.whimsical, 1, 1]
        outcomes = ("stored", "a whim", "lost before the commit", "lost after the commit")
        outcome = "stored" if self.calm else self.random.choices(outcomes, weights)[0]
        poisoned = any(POISON in (entry.text or "") for caller in self.flying for entry in caller.items)
        if outcome.startswith("lost"):
            self.lose(after=outcome == "lost after the commit" and not poisoned)
        elif outcome == "stored" and not poisoned:
            self.outcome = "stored"
            ids = self.store()
            flying, self.flying = self.flying, ()
            if busy := self.appender.on_stored(ids):
                assert {call for call in flying if None in call.returned and not call.told} == {*busy}
                self.aside.append(busy)
        else:
            self.outcome = "refused"
            new = any(entry.idempotency_key not in self.keys for caller in self.flying for entry in caller.items)
            about_one = poisoned or (new and self.chance(0.5))
            sqlstate = (
                "23514" if about_one else "53100"
            )  # a constraint, which is asked of what is new; the disk is full
            seen["divided"] += sqlstate == "23514" and len(self.flying) > 1
            self.error = ServerRefused("no", sqlstate=sqlstate)
            self.flying = ()
            self.appender.on_refused(self.error)
        self.pump()

    def lose(self, *, after: bool) -> None:
        self.outcome = "lost"
        if after and not any(POISON in (entry.text or "") for caller in self.flying for entry in caller.items):
            self.store()
        self.flying = ()
        self.appender.on_lost(ConnectionLost("reset"))
        self.pump()

    def check(self) -> None:
        assert (self.appender.in_flight is None) == (not self.flying)
        for caller in self.callers:
            key = caller.items[0].idempotency_key if caller.items else None
            assert key is None or caller.stored <= 1, "stored twice"


HAPPENINGS = [
    *(f"told {name}" for name in ("NoneType", "ServerRefused", "SendTimeout", "SendUncertain", "Closed")),
    "withdrawn before",
    "withdrawn in flight",
    "several together",
    "divided",
    "stored by another",
    "another is about to store it",
    "resumed",
]

SIMULATION = Simulation(
    "appender",
    lambda seed: Schedule(seed).run(),
    seen,
    HAPPENINGS,
    enough=2000,
    small={
        "pgpubsub.core.appender.ENTRIES": ENTRIES,
        "pgpubsub.core.appender.ENTRIES_ONCE": ENTRIES_ONCE,
        "pgpubsub.core.appender.CHARACTERS": CHARACTERS,
    },
)


def test_nobody_is_told_what_is_not_so() -> None:
    SIMULATION.check(SCHEDULES)
