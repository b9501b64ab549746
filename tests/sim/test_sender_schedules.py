"""The sender under thousands of random schedules: a simulated shell, server and set of callers.

The server is the truth: it merges the equal notifications of a transaction, refuses some for good and whole statements
on a whim, and loses the connection before or after it has committed. Callers submit, give up and are told; outages come
and time passes. After every step the rules that `pgpubsub.core.sender` promises are checked against what has been
delivered. A failure names its seed; PGPUBSUB_SIM_SEED=that PGPUBSUB_SIM_SCHEDULES=1 repeats it.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Sequence

from pgpubsub import Closed, ConnectionLost, Notify, SendTimeout, SendUncertain, ServerRefused
from pgpubsub.core import grouping
from pgpubsub.core.frames import MAX_PAYLOAD, Message, join, pack
from pgpubsub.core.sender import Call, Sender
from pgpubsub.errors import PubSubError
from tests.sim.simulation import Simulation, schedules

SCHEDULES = schedules(3000)

TIMEOUT = 10.0
MESSAGES, CHARACTERS = 8, 300
"""Of a batch; small, so that they are met."""
BYTES, CHUNK = 100, 36
"""Of a notification and a chunk, likewise."""
POISON = "☠"
"""What this server never lets anybody send."""

seen: Counter[str] = Counter()
"""What has happened in all schedules: a simulation proves nothing of what it never meets."""


class Family:
    """The calls of a batch that was refused, and the parts into which it was divided."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.statements = 1
        self.divided = 1


class Caller(Call):
    """Somebody who waits, and what is true of what they want to send."""

    __slots__ = ("deadline", "delivered", "family", "left", "number", "on_told", "over", "statements", "wanted")

    def __init__(
        self,
        number: int,
        messages: Sequence[Message],
        urgent: bool,
        deadline: float,
        on_told: Callable[[Caller, PubSubError | None], None],
    ) -> None:
        super().__init__(messages, urgent=urgent)
        self.number = number
        self.wanted = tuple(messages)
        self.deadline = deadline
        self.on_told = on_told
        self.over = False  # told, or withdrawn
        self.left = False  # to be withdrawn, as the shell knows already
        self.delivered = 0
        self.statements = 0  # it went out in
        self.family: Family | None = None

    def tell(self, error: PubSubError | None) -> None:
        self.on_told(self, error)

    @property
    def called_off(self) -> bool:
        return self.told or self.left

    @property
    def poisoned(self) -> bool:
        return any(POISON in text for _, text in self.wanted)

    @property
    def characters(self) -> int:
        return sum(len(text) for _, text in self.wanted)


class Schedule:
    """One random life of a sender."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = self.random.uniform(0, 1000)
        self.sender = Sender(TIMEOUT, lambda call, _: self.noted.append(call))
        self.noted: list[grouping.Call[Message]] = []  # whom the shell was told about
        self.callers: list[Caller] = []
        self.told: list[Caller] = []
        self.flying: tuple[Caller, ...] = ()
        self.behind: deque[tuple[Caller, ...]] = deque()  # in the same round trip
        self.outcome = ""  # of what was in flight
        self.error: PubSubError = ConnectionLost("not connected yet")
        self.connected = self.chance(0.8)
        self.closed = False
        self.calm = False
        self.sent = 0
        self.newest = {False: -1, True: -1}  # number of the last call delivered, and of the last urgent one
        self.whimsical = self.chance(0.3)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def new_name(self) -> str:
        return f"{self.random.getrandbits(64):016x}"

    @property
    def waiting(self) -> list[Caller]:
        """Who should still be sent, in order."""
        return [caller for caller in self.callers if not caller.called_off and caller not in self.aloft]

    @property
    def aloft(self) -> list[Caller]:
        """Who is in flight."""
        return [*self.flying, *(caller for batch in self.behind for caller in batch)]

    def run(self) -> None:
        happenings = [
            self.answer,
            self.submit,
            self.submit_many,
            self.leave,
            self.withdraw,
            self.pass_time,
            self.toggle,
        ]
        weights = [self.random.choice((2, 4, 8)), 6, self.random.choice((0, 1, 3)), 0.5, 2, 2, 0.3]
        for _ in range(self.random.randrange(5, 60)):
            self.random.choices(happenings, weights)[0]()
            self.check()
        if self.chance(0.1):
            self.fail()
            self.answer()
            self.check()
        self.calm = True
        self.connected = True
        self.pump()
        for _ in range(3 * len(self.callers) + 1):
            if not self.flying:
                return self.check_end()
            self.answer()
            self.check()
        raise AssertionError("it does not come to rest")

    # -- what the callers do

    def submit(self) -> None:
        number = len(self.callers)
        urgent = self.chance(0.1)
        count = 1 if urgent or self.chance(0.5) else self.random.choice((1, 2, 3, MESSAGES - 1, MESSAGES + 2))
        messages = [(self.random.choice("ab"), self.text(f"{number}.{place}")) for place in range(count)]
        seen["repetitions within a call"] += len(set(messages)) < count
        caller = Caller(number, messages, urgent, self.now + TIMEOUT, self.on_told)
        self.callers.append(caller)
        self.sender.submit(caller, self.now)
        self.pump()

    def submit_many(self) -> None:
        for _ in range(self.random.randrange(2, 12)):
            self.submit()

    def text(self, unique: str) -> str:
        kind = self.random.random()
        if kind < 0.7:
            return unique
        if kind < 0.8:
            return self.random.choice(("", "same", "equal", "pgpubsub/1 0123456789abcdef 1/2 no chunk"))
        if kind < 0.83:
            return unique + POISON
        return unique + self.random.choice("xé") * self.random.randrange(1, CHARACTERS)

    def leave(self) -> None:
        for caller in self.somebody():
            seen["left in flight" if caller in self.aloft else "left before"] += 1
            caller.left = True

    def withdraw(self) -> None:
        left = [caller for caller in self.callers if caller.left and not caller.over]
        for caller in left or self.somebody():
            seen["withdrawn in flight" if caller in self.aloft else "withdrawn before"] += 1
            caller.over = True
            self.sender.withdraw(caller)

    def somebody(self) -> list[Caller]:
        """One of those who have come lately, if any is still there."""
        candidates = [caller for caller in self.callers[-10:] if not caller.called_off]
        return [self.random.choice(candidates)] if candidates else []

    def on_told(self, caller: Caller, error: PubSubError | None) -> None:
        """What `caller` is told is true, and the first that it is told."""
        assert not caller.over, "told twice, or after it was withdrawn"
        caller.over = True
        if not caller.urgent:
            self.told.append(caller)
        flown = caller in self.flying
        match error:
            case None:
                assert flown
                assert self.outcome == "sent"
                assert caller.delivered == 1
            case SendUncertain():
                assert flown
                assert self.outcome in ("lost before the commit", "lost after the commit")
                assert caller.delivered == (self.outcome == "lost after the commit")
            case ServerRefused():
                assert self.flying == (caller,), "of several nobody knows which"
                assert error is self.error
                assert caller.poisoned or self.outcome == "refused on a whim", "it was not its fault"
                assert not caller.delivered
            case SendTimeout():
                assert caller not in self.aloft
                assert self.now >= caller.deadline
                assert not caller.delivered
            case _:
                assert isinstance(error, Closed)
                assert self.closed
                assert not flown or self.outcome.startswith("refused"), "it is not known not to have been sent"
                assert not caller.delivered
        seen[f"told {type(error).__name__}"] += 1

    # -- what the shell does

    def pump(self) -> None:
        """Send what can be sent."""
        if not self.connected:
            return
        waiting = self.waiting
        batch = self.sender.next_batch()
        if self.flying or not waiting:
            assert batch is None, "two at once, or something that nobody wants sent"
            return
        assert batch is not None, "somebody waits for nothing"
        assert batch is self.sender.in_flight
        flying = self.callers_of(batch)
        self.check_choice(flying, waiting)
        self.flying = tuple(flying)
        last = batch
        while self.chance(0.8) and (follower := self.sender.next_batch(behind=True)) is not None:
            seen["several in a round trip"] += 1
            flying = self.callers_of(follower)
            assert flying == self.longest(self.waiting)
            assert not {message for call in last.calls for message in call.items}.isdisjoint(flying[0].wanted)
            self.behind.append(tuple(flying))
            last = follower

    def callers_of(self, batch: grouping.Batch[Message]) -> list[Caller]:
        """Whose it is. They know that it goes out."""
        callers = []
        for call in batch.calls:
            assert isinstance(call, Caller)
            call.statements += 1
            callers.append(call)
        return callers

    def land(self) -> None:
        """The oldest of what was in flight is not any more."""
        self.flying = self.behind.popleft() if self.behind else ()

    def check_choice(self, flying: list[Caller], waiting: list[Caller]) -> None:
        """All that can go together do, the oldest first."""
        urgent = [caller for caller in waiting if caller.urgent]
        family = waiting[0].family if not urgent else None
        if urgent:
            seen["urgent before others"] += len(waiting) > 1
            assert flying == urgent[:1]
        elif family is None:
            assert flying == self.longest(waiting)
        else:
            assert flying == waiting[: len(flying)]
            family.statements += 1
            assert family.statements <= 1 + 2 * family.divided, "a part that is refused becomes two"
            for caller in flying:
                assert caller.family is family
                assert caller.statements <= 1 + (family.size - 1).bit_length(), "each half as large"

    def longest(self, waiting: list[Caller]) -> list[Caller]:
        """As many as go into one statement without a loss, but one in any case."""
        together = waiting[:1]
        for caller in waiting[1:]:
            messages = [message for one in together for message in one.wanted]
            full = {
                "too many messages": len(messages) + len(caller.wanted) > MESSAGES,
                "too many characters": sum(one.characters for one in [*together, caller]) > CHARACTERS,
                "equal messages": not set(messages).isdisjoint(caller.wanted),
            }
            if any(full.values()):
                seen.update(reason for reason, holds in full.items() if holds)
                break
            together.append(caller)
        return together

    def pass_time(self) -> None:
        """The shell has set an alarm; it may be late."""
        until = self.now + self.random.expovariate(0.3)
        busy = self.chance(0.2)
        while not busy and (due := self.sender.next_expiry) is not None and due <= until:
            self.now = max(self.now, due)
            self.expire()
        self.now = until
        self.expire()

    def expire(self) -> None:
        self.sender.expire(self.now, "others are still being sent")
        first = min((caller.deadline for caller in self.waiting), default=None)
        due = self.sender.next_expiry
        assert due is None or due > self.now, "a shell that looks again at once looks for ever"
        assert due == first or [caller for caller in self.callers if caller.left and not caller.over]

    def toggle(self) -> None:
        """An outage begins, or ends."""
        if self.connected and self.flying:
            self.lose(self.random.choice(("lost before the commit", "lost after the commit")))
        self.connected = not self.connected
        self.pump()

    def fail(self) -> None:
        self.closed = True
        self.sender.fail(Closed("closed"))
        assert not self.waiting
        assert self.sender.next_expiry is None

    # -- what the server does

    def answer(self) -> None:
        batch = self.sender.in_flight
        if batch is None:
            return
        kinds = ["sent", "refused on a whim", "lost before the commit", "lost after the commit"]
        weights = [20, 5 * self.whimsical, 1, 1]
        outcome = "sent" if self.calm else self.random.choices(kinds, weights)[0]
        if outcome.startswith("lost"):
            self.lose(outcome)
            return
        if outcome == "sent" and any(POISON in text for _, text in batch.items):
            outcome = "refused for good"
        self.outcome = outcome
        if outcome == "sent":
            self.deliver(batch)
            self.sent += sum(len(caller.wanted) for caller in self.flying if not caller.urgent)
            self.sender.on_sent()
        else:
            self.error = ServerRefused(outcome)
            self.note_refusal()
            self.sender.on_refused(self.error)
        self.land()
        self.pump()

    def note_refusal(self) -> None:
        if len(self.flying) == 1 or self.closed:
            return
        seen["divided"] += 1
        family = self.flying[0].family
        if family is not None:
            family.divided += 1
            return
        family = Family(len(self.flying))
        for caller in self.flying:
            caller.family = family

    def lose(self, outcome: str) -> None:
        while (batch := self.sender.in_flight) is not None:
            self.outcome = outcome
            poisoned = any(POISON in text for _, text in batch.items)
            if poisoned:
                self.outcome = "lost before the commit"
            elif outcome == "lost after the commit":
                self.deliver(batch)
            self.sender.on_lost(ConnectionLost("reset"))
            self.land()
            if outcome == "lost after the commit":
                outcome = self.random.choice(("lost before the commit", "lost after the commit"))
        self.pump()

    def deliver(self, batch: grouping.Batch[Message]) -> None:
        """Commit: what arrives is all of each call, and nothing else."""
        events = [Notify(7, *message) for message in dict.fromkeys(pack(batch.items, self.new_name))]
        assert all(len(event.payload.encode()) <= BYTES for event in events), "the server would have refused it"
        runs, partial = join(None, events, MAX_PAYLOAD)
        assert partial is None
        assert len(runs) == 1
        assert isinstance(runs[0], list)
        arrived = [(event.channel, event.payload) for event in runs[0]]
        assert arrived == [message for caller in self.flying for message in caller.wanted]
        for caller in self.flying:
            caller.delivered += 1
            assert caller.delivered == 1, "sent twice"
            if caller.family is None:  # else it was sent again, behind what was in flight with it
                assert caller.number > self.newest[caller.urgent], "one that was submitted later was sent before"
                self.newest[caller.urgent] = caller.number

    # -- what must be true at any time, and when everything has calmed down

    def check(self) -> None:
        waiting = self.waiting
        there = [caller for caller in self.callers if not (caller.over or caller.urgent)]
        assert self.sender.idle or there, "it waits for what is over"
        assert not self.sender.idle or all(caller.left and caller not in self.aloft for caller in there)
        assert (self.sender.in_flight is None) == (not self.flying)
        assert self.flying or not waiting or not self.connected, "something could be sent"
        if waiting:
            due = self.sender.next_expiry
            assert due is not None
            assert due <= min(caller.deadline for caller in waiting), "somebody would be told too late"
        assert self.sender.sent == self.sent
        assert self.noted == self.told

    def check_end(self) -> None:
        assert all(caller.over or caller.left for caller in self.callers), "somebody was told nothing"
        assert self.sender.next_batch() is None
        self.now += TIMEOUT
        self.expire()
        assert self.sender.idle


HAPPENINGS = [
    "several in a round trip",
    "told NoneType",
    "told ServerRefused",
    "told SendTimeout",
    "told SendUncertain",
    "told Closed",
    "withdrawn before",
    "withdrawn in flight",
    "left before",
    "left in flight",
    "repetitions within a call",
    "urgent before others",
    "too many messages",
    "too many characters",
    "equal messages",
    "divided",
]

SIMULATION = Simulation(
    "sender",
    lambda seed: Schedule(seed).run(),
    seen,
    HAPPENINGS,
    enough=1000,
    small={
        "pgpubsub.core.sender.MESSAGES": MESSAGES,
        "pgpubsub.core.sender.CHARACTERS": CHARACTERS,
        "pgpubsub.core.frames.PAYLOAD_LIMIT": BYTES,
        "pgpubsub.core.frames.CHUNK": CHUNK,
    },
)


def test_the_promises_hold_under_every_schedule() -> None:
    SIMULATION.check(SCHEDULES)
