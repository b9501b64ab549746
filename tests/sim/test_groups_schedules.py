"""Members of a group under thousands of random schedules: a simulated stream, a group's tables, and a shell for each
`Share`.

The stream has transaction ids and snapshots as a primary has them; transactions commit late, roll back, or stay open
all along. The tables do what the statements of `schema/0002_groups.sql` do, each at one stroke. Members join, leave,
crash, lose their connection with a statement under way, and sleep through their lease; handlers fail, kill their
process, acknowledge with the member or in a transaction of their own, which may end when the member is long gone.
A server that crashes forgets what was not to be durable, and a pooler hides that. Between any two statements anything
may happen.

What is checked: every committed entry is acknowledged once, or set aside, and is not handed out again then; what an
entry's appender could have seen of its key is settled before it is handed out; no two of a key are in hand at members
that are valid; an entry is set aside only after it was handed out alone, and that no more often than is allowed; while
some entries wait for another attempt, those of other keys are all handled. A failure names its seed;
PGPUBSUB_SIM_SEED=that PGPUBSUB_SIM_SCHEDULES=1 repeats it.
"""

from __future__ import annotations

import os
import random
from bisect import insort
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from uuid import UUID

import pytest

from pgpubsub.core.groups import SLOTS, Item, Lane, Place, Share, Write, quota
from pgpubsub.core.position import Anchor, Covered, Position, Snapshot, spans
from pgpubsub.core.reading import Batch, Look, Measure, Newest, Page, Reading

SCHEDULES = int(os.environ.get("PGPUBSUB_SIM_SCHEDULES", "100"))
SEED = int(os.environ.get("PGPUBSUB_SIM_SEED", random.SystemRandom().randrange(10**9)))

BIRTH = UUID(int=7)
STREAM = 5
LEASE = 100.0
LOOK = 4
"""Entries that are too many for one look; small, so that it is met."""

seen: Counter[str] = Counter()
"""What has happened in all schedules: a simulation proves nothing of what it never meets."""


# -- the stream


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """An entry, committed or not."""

    id: int
    xid: int
    key: str | None
    slot: int
    fault: str
    """What its handler does, however often: nothing, "poison" or "kill"."""
    earlier: tuple[Row, ...]
    """Those of its key that its appender could have seen."""


class Stream:
    """What a primary has of it."""

    def __init__(self, first_xid: int) -> None:
        self.next_xid = first_xid
        self.completed = first_xid - 1
        self.next_id = 1
        self.running: set[int] = set()
        self.rows: dict[int, list[Row]] = {}  # that are not committed, by transaction
        self.visible: list[Row] = []
        """Those that are committed, in order of ids."""

    def assign(self) -> int:
        """A new transaction id."""
        self.running.add(self.next_xid)
        self.rows[self.next_xid] = []
        self.next_xid += 1
        return self.next_xid - 1

    def append(self, xid: int, key: str | None, slot: int, fault: str) -> None:
        there = [*self.visible, *self.rows[xid]]
        earlier = tuple(row for row in there if row.key == key) if key is not None else ()
        self.rows[xid].append(Row(self.next_id, xid, key, slot, fault, earlier))
        self.next_id += 1

    def end(self, xid: int, *, committed: bool) -> None:
        self.running.discard(xid)
        self.completed = max(self.completed, xid)
        rows = self.rows.pop(xid)
        if committed:
            for row in rows:
                insort(self.visible, row, key=lambda one: one.id)

    def snapshot(self) -> Snapshot:
        xmax = self.completed + 1
        running = frozenset(xid for xid in self.running if xid < xmax)
        return Snapshot(min(running, default=xmax), xmax, running)


class Writer:
    """Has one transaction at a time."""

    def __init__(self, schedule: Schedule, *, stays_open: bool = False) -> None:
        self.schedule = schedule
        self.stays_open = stays_open
        self.xid: int | None = None

    def step(self) -> None:
        weights = [1, 6, 0, 0] if self.stays_open else [1, 8, 4, 1]
        kind = self.schedule.random.choices(["take an id", "append", "commit", "roll back"], weights)[0]
        stream = self.schedule.stream
        if self.xid is None:
            self.xid = stream.assign()
        if kind == "append":
            key, slot = self.schedule.any_key()
            faults = self.schedule.random.choices(["", "poison", "kill"], self.schedule.faults)
            stream.append(self.xid, key, slot, faults[0])
        elif kind != "take an id":
            self.end(committed=kind == "commit")

    def end(self, *, committed: bool) -> None:
        if self.xid is not None:
            seen["past an open transaction"] += any(xid < self.xid for xid in self.schedule.stream.running)
            self.schedule.stream.end(self.xid, committed=committed)
            self.xid = None


# -- the server's tables


@dataclass(slots=True)
class SlotRow:
    member: int | None
    place: Place
    in_flight: Sequence[int] = ()
    held: Sequence[int] = ()


@dataclass(slots=True)
class ParkedRow:
    row: Row
    attempts: int
    together: int
    due: float | None
    dead: bool = False


@dataclass(slots=True)
class MemberRow:
    batch: int
    until: float
    connected: bool = True


@dataclass(slots=True)
class Tables:
    """What is stored. A copy of it is what is on disk."""

    slots: list[SlotRow]
    parked: dict[int, ParkedRow] = field(default_factory=dict)
    members: dict[int, MemberRow] = field(default_factory=dict)
    acknowledged: dict[int, tuple[int, Sequence[int]]] = field(default_factory=dict)

    def copy(self) -> Tables:
        return Tables(
            [replace(slot) for slot in self.slots],
            {id: replace(parked) for id, parked in self.parked.items()},
            {id: replace(member) for id, member in self.members.items()},
            dict(self.acknowledged),
        )


class Transaction:
    """One of a handler, that has acknowledged a claim."""

    def __init__(self, member: int, claim: Claim, number: int) -> None:
        self.member = member
        self.claim = claim
        self.number = number
        self.committed: bool | None = None
        """None: it is open."""


class Server:
    """The tables, and the statements. Each says what it does in `0002_groups.sql` under the same name."""

    def __init__(self, schedule: Schedule, start: Place) -> None:
        self.schedule = schedule
        self.tables = Tables([SlotRow(None, start) for _ in range(SLOTS)])
        self.flushed = self.tables.copy()
        self.transactions: list[Transaction] = []  # that are open
        self.late: list[tuple[int, Pending]] = []
        """Statements whose connection was lost before they began, and which may yet be run."""
        self.numbers = 0

    @property
    def now(self) -> float:
        return self.schedule.now

    def flush(self) -> None:
        if self.schedule.crashes:
            self.flushed = self.tables.copy()

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def disconnect(self, member: int | None) -> None:
        """Its connection has ended, which shows, unless it is one to a pooler."""
        if member in self.tables.members and not self.schedule.pooled:
            self.tables.members[member].connected = False

    def is_locked(self, member: int) -> bool:
        """Whether a handler's transaction is open that acknowledges in its name."""
        return any(one.member == member for one in self.transactions)

    def promote(self, keys: Iterable[str]) -> set[str]:
        found = set()
        for key in keys:
            line = [id for id, one in self.tables.parked.items() if one.row.key == key and not one.dead]
            if line:
                found.add(key)
                first = self.tables.parked[min(line)]
                if first.due is None:
                    first.due = self.now
        return found

    def end_member(self, member: int) -> None:
        tables = self.tables
        settled = {id for whose, ids in tables.acknowledged.values() if whose == member for id in ids}
        alone = member in tables.members and tables.members[member].batch == 1
        keys = set()
        for id in settled:
            if id in tables.parked and not tables.parked[id].dead:
                keys.add(tables.parked.pop(id).row.key)
        for slot in tables.slots:
            if slot.member != member:
                continue
            for id, attempts in [*[(id, 1) for id in slot.in_flight], *[(id, 0) for id in slot.held]]:
                if id not in settled:
                    row = self.schedule.row(id)
                    assert id not in tables.parked
                    together = 0 if alone and attempts else 1
                    tables.parked[id] = ParkedRow(row, attempts, together, self.now if row.key is None else None)
                    keys.add(row.key)
            slot.member, slot.in_flight, slot.held = None, (), ()
        self.promote(key for key in keys if key is not None)
        tables.acknowledged = {number: one for number, one in tables.acknowledged.items() if one[0] != member}
        tables.members.pop(member, None)
        self.schedule.truth.forget(member)
        self.flush()

    def join_group(self, batch: int, former: int | None) -> int:
        if former in self.tables.members and not self.is_locked(former):
            seen["a former membership was ended"] += 1
            self.end_member(former)
        member = self.number()
        self.tables.members[member] = MemberRow(batch, self.now + LEASE)
        self.flush()
        return member

    def tick(self, member: int) -> tuple[Sequence[str], int] | None:
        members = self.tables.members
        if member not in members:
            return None
        members[member].until = self.now + LEASE
        for other, row in list(members.items()):
            if other != member and (row.until < self.now or not row.connected):
                if self.is_locked(other):
                    seen["a membership is held by a transaction"] += 1
                else:
                    seen["a lease has ended" if row.connected else "a connection has ended"] += 1
                    self.end_member(other)
        for gone in {slot.member for slot in self.tables.slots} - members.keys() - {None}:
            assert gone is not None
            seen["a membership has ended with the server"] += 1
            self.end_member(gone)
        self.flush()
        free = sum(slot.member is None for slot in self.tables.slots)
        return [str(number) for number in sorted(members)], free

    def take(self, member: int, wanted: int) -> list[tuple[int, Place]]:
        if member not in self.tables.members:
            return []
        free = [number for number, slot in enumerate(self.tables.slots) if slot.member is None][:wanted]
        for number in free:
            self.tables.slots[number].member = member
        self.flush()
        return [(number, self.tables.slots[number].place) for number in free]

    def blocked(self, slots: Collection[int]) -> list[str]:
        parked = [one for one in self.tables.parked.values() if one.row.slot in slots and one.due is not None]
        return [one.row.key for one in parked if one.row.key is not None]

    def due(self, slots: Collection[int], known: Collection[int], rows: int) -> list[tuple[int, ParkedRow]]:
        found = [
            (one.due, id)
            for id, one in self.tables.parked.items()
            if one.due is not None and one.due <= self.now and one.row.slot in slots and id not in known
        ]
        return [(id, self.tables.parked[id]) for id in sorted(id for _, id in sorted(found)[:rows])]

    def write_down(self, member: int, write: Write) -> set[str] | None:
        tables = self.tables
        if member not in tables.members:
            return None
        for state in write.slots:
            slot = tables.slots[state.number]
            assert slot.member == member, "somebody writes of a slot that is another's"
            assert all(self.schedule.is_committed(id) for id in [*state.in_flight, *state.held])
            assert state.kept or not (state.in_flight or state.held)
            tables.slots[state.number] = SlotRow(
                member if state.kept else None, state.place, tuple(state.in_flight), tuple(state.held)
            )
        for started in write.started:
            if parked := tables.parked.get(started.id):
                assert not parked.dead, "what was set aside is handed out"
                parked.attempts += 1
                parked.together, parked.due = started.together, self.now + started.delay
        for number in write.noted:
            tables.acknowledged.pop(number, None)
        waiting = set()
        if write.done or write.parked:
            rows = [tables.parked.pop(id).row for id in write.done if id in tables.parked]
            assert len({one.id for one in write.parked}) == len(write.parked), "two things are said of one entry"
            for one in write.parked:
                due = None if one.delay is None else self.now + one.delay
                row = self.schedule.row(one.id)
                rows.append(row)
                if one.dead:
                    self.schedule.truth.on_dead(row)
                tables.parked[one.id] = ParkedRow(row, one.attempts, one.together, due, one.dead)
            keys = {row.key for row in rows if row.key is not None}
            assert keys <= write.keys
            waiting = self.promote(keys)
        if write.durable:
            self.flush()
        return waiting

    def acknowledge(self, member: int, claim: Claim) -> Transaction | None:
        """Begin a transaction of which that is a part. None: it is refused."""
        if member not in self.tables.members:
            return None
        self.transactions.append(Transaction(member, claim, self.number()))
        return self.transactions[-1]

    def end_transaction(self, transaction: Transaction, *, committed: bool) -> None:
        self.transactions.remove(transaction)
        transaction.committed = committed
        if committed:
            ids = [row.id for row in transaction.claim.rows]
            self.tables.acknowledged[transaction.number] = transaction.member, ids
            self.schedule.truth.on_acknowledged(transaction.claim)
            self.flush()

    def redrive(self) -> None:
        """Let dead letters be handed out again."""
        keys = set()
        for one in self.tables.parked.values():
            if one.dead:
                one.dead, one.attempts, one.together = False, 0, 1
                one.due = self.now if one.row.key is None else None
                keys.add(one.row.key)
                self.schedule.truth.forget_attempts(one.row)
        self.promote(key for key in keys if key is not None)

    def run_late(self) -> None:
        """Run a statement that its member knows nothing of any more."""
        if self.late:
            done = self.schedule.run_write(*self.late.pop()) is not None
            seen["a write is run when its member has forgotten it" if done else "a write is refused"] += 1

    def crash(self) -> None:
        """Forget what was not flushed, if that is so, and who the members were, whose table is not logged."""
        seen["the server crashed"] += 1
        if self.schedule.chance(0.7):
            seen["something is lost with the server"] += self.tables != self.flushed
            self.tables = self.flushed.copy()
        self.tables.members.clear()
        self.flush()
        for transaction in self.transactions[:]:
            self.end_transaction(transaction, committed=False)
        self.late.clear()
        for worker in self.schedule.workers:
            if not self.schedule.pooled:
                worker.connected, worker.pending = False, None
            if worker.runs and self.schedule.chance(0.5):
                worker.handle()  # whose own connection was there again before the member has noticed


# -- the promises


class Truth:
    """What became of every entry."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.done: set[int] = set()
        self.dead: set[int] = set()
        self.in_hand: list[Claim] = []
        """At members that are valid, for all that the server knows."""
        self.alone: Counter[int] = Counter()

    def is_settled(self, row: Row) -> bool:
        return row.id in self.done or row.id in self.dead

    def on_started(self, claim: Claim) -> None:
        """It is written down that it will be handed out."""
        claim.started = True
        if len(claim.rows) == 1:
            self.alone[claim.rows[0].id] += 1

    def on_handed_out(self, claim: Claim) -> None:
        server = self.schedule.server
        if claim.member not in server.tables.members:
            seen["handed out when the lease had ended"] += 1
            return
        before: set[Row] = set()
        for row in claim.rows:
            assert not self.is_settled(row), "what is settled is handed out"
            for earlier in row.earlier:
                there = self.is_settled(earlier) or earlier in before or not self.schedule.is_committed(earlier.id)
                assert there, f"{row.id} is handed out before {earlier.id}, which comes first"
            before.add(row)
        for other in self.in_hand:
            assert not other.ids & claim.ids, "an entry is in hand twice"
            assert not other.keys & claim.keys, "two of a key are in hand"
        self.in_hand.append(claim)
        if len(claim.rows) == 1:
            [row] = claim.rows
            allowed = self.schedule.attempts if self.schedule.single else max(2, self.schedule.attempts)
            assert self.schedule.crashes or self.alone[row.id] <= allowed, f"{row.id} is handed out too often"

    def on_acknowledged(self, claim: Claim) -> None:
        """In a way that counts."""
        for row in claim.rows:
            assert not self.is_settled(row), "what is settled is acknowledged"
            self.done.add(row.id)
        for row in claim.rows:
            assert all(self.is_settled(one) for one in row.earlier if self.schedule.is_committed(one.id))
        self.put_down(claim)

    def on_dead(self, row: Row) -> None:
        assert not self.is_settled(row), "what is settled is set aside"
        assert self.alone[row.id], f"{row.id} is set aside, but never was handed out alone"
        assert all(self.is_settled(one) for one in row.earlier if self.schedule.is_committed(one.id))
        self.dead.add(row.id)
        seen["set aside"] += 1

    def on_given_back(self, claim: Claim) -> None:
        """It never was handed out."""
        if len(claim.rows) == 1 and claim.started and not self.schedule.crashes:
            self.alone[claim.rows[0].id] -= 1

    def put_down(self, claim: Claim) -> None:
        if claim in self.in_hand:
            self.in_hand.remove(claim)

    def forget_attempts(self, row: Row) -> None:
        """It was set aside, and is to be handed out again."""
        self.dead.discard(row.id)
        del self.alone[row.id]

    def forget(self, member: int) -> None:
        """It is not a member any more."""
        seen["a membership ended with something in hand"] += any(one.member == member for one in self.in_hand)
        self.in_hand = [one for one in self.in_hand if one.member != member]


# -- members


class Claim:
    """What was handed out together."""

    def __init__(self, member: int, items: Sequence[Item]) -> None:
        self.member = member
        self.items = items
        self.rows: Sequence[Row] = [item.entry for item in items]
        self.ids = {row.id for row in self.rows}
        self.keys = {row.key for row in self.rows if row.key is not None}
        self.started = False
        """Whether that is written down."""


class Settled(NamedTuple):
    """What was said of a claim, and is in the next write."""

    claim: Claim
    how: str


class Pending(NamedTuple):
    """A write that is under way."""

    write: Write
    settled: Sequence[Settled]
    starting: Sequence[Claim]


class LaneReader:
    """Reads some slots, as `streams.reader` does."""

    def __init__(self, worker: Worker, lane: Lane) -> None:
        self.worker = worker
        self.schedule = worker.schedule
        self.lane = lane
        start = lane.start
        self.reading = Reading(STREAM, Position(BIRTH, STREAM, 1, start.covered, None, start.target, start.last))
        self.page_size = self.schedule.random.randrange(1, 4)

    def step(self) -> bool:
        """One statement, and whether there may be more to do."""
        if self.worker.share.waiting > self.worker.ahead:
            return False
        visible, reading, step = self.schedule.stream.visible, self.reading, self.reading.next_step()
        rows = [row for row in visible if row.slot in self.lane.slots]
        snapshot = self.schedule.stream.snapshot()
        match step:
            case Look(covered):
                open = {*covered.open} - snapshot.running
                due = [row for row in rows if row.xid >= covered.below or row.xid in open]
                if len(due) >= LOOK or self.schedule.chance(0.02):
                    reading.on_many()
                    return True
                batch = reading.on_looked(snapshot, newest(visible, covered.below), last(due))
                return self.deliver(due, batch or Batch(reading.position, reading.position, None))
            case Measure(covered):
                reading.on_measured(snapshot, newest(visible, covered.below), last(visible))
                return reading.in_midst
            case Page():
                return self.read_page(step, rows)
        raise AssertionError(step)

    def read_page(self, page: Page, rows: Sequence[Row]) -> bool:
        after = page.after
        if after is None:
            after = self.before_first(page, 0)
        if after is None:
            self.reading.on_page(None, done=True)
            return True
        raw = [row for row in rows if after < row.id <= page.until][: self.page_size]
        wanted = [row for row in raw if page.target.covers(row.xid) and not page.covered.covers(row.xid)]
        until = last(raw)
        if until is not None and not wanted:
            until = self.before_first(page, until)
        return self.deliver(wanted, self.reading.on_page(until, done=until is None)) or self.reading.in_midst

    def before_first(self, page: Page, after: int) -> int | None:
        """What is just below the first id that is to be read."""
        ranges = list(spans(page.covered, page.target))
        visible = self.schedule.stream.visible
        ids = [row.id for row in visible if row.id > after and any(low <= row.xid < high for low, high in ranges)]
        return min(ids) - 1 if ids else None

    def deliver(self, rows: Sequence[Row], batch: Batch) -> bool:
        worker = self.worker
        items = [Item(row.id, row.slot, row.key, row, row.xid) for row in rows]
        worker.share.on_read(self.lane, items, batch)
        if self.lane.start.target is not None and batch.after.target is None:
            seen["a lane came to the end of its target"] += 1
            worker.lanes_due = True
        self.schedule.happened += len(rows)
        return bool(rows)


def newest(rows: Iterable[Row], low: int) -> Newest | None:
    """Of those whose transaction ids are not below `low`."""
    row = max([row for row in rows if row.xid >= low], key=lambda row: (row.xid, row.id), default=None)
    return None if row is None else Newest(row.xid, Anchor(row.id, row.id))


def last(rows: Sequence[Row]) -> int | None:
    """The last id."""
    return rows[-1].id if rows else None


class Lost(Exception):
    """The connection, or the lease."""


class Worker:
    """A process with one consumer: the shell of a `Share`, as `groups.member` is one."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.server = schedule.server
        self.random = schedule.random
        self.batch = 1 if schedule.single else self.random.choice((1, 2, 3, 25))
        self.concurrency = self.random.randrange(1, 5)
        self.due_rows = self.random.choice((1, 3, 100))
        self.ahead = self.random.choice((2, 10, 1000))
        self.former: int | None = None
        self.paused_until = 0.0
        self.finishing = self.stopped = self.gone = False
        self.forget()

    def forget(self) -> None:
        """Everything but its name."""
        self.member: int | None = None
        self.connected = False
        self.share = Share(self.schedule.attempts, lambda attempt: self.schedule.backoff * attempt, self.batch)
        self.lanes: list[LaneReader] = []
        self.lanes_due = False
        self.starting: list[Claim] = []
        self.ready: deque[Claim] = deque()
        self.in_hand: list[Claim] = []
        self.settled: list[Settled] = []
        self.doubtful: list[Transaction] = []
        self.pending: Pending | None = None
        self.phase = 0

    @property
    def runs(self) -> bool:
        return not self.gone and self.paused_until <= self.schedule.now

    # -- its loop

    def step(self) -> None:
        """What comes next, up to the next answer of the server."""
        try:
            if self.member is None:
                self.join()
            elif not self.connected:
                raise Lost
            elif self.pending is not None:
                self.receive()
            else:
                self.phase = self.phase % 4 + 1
                [self.tick, self.fetch_due, self.ask_for_fates, self.send][self.phase - 1]()
                if self.lanes_due and not self.stopped:
                    self.read_on()
        except Lost:
            self.lose()

    def work(self) -> None:
        """Do all that there is to do, and look at everything once."""
        for _ in range(6):
            if not self.gone:
                self.step()
        for lane in self.lanes:
            while not self.lanes_due and lane.step():
                pass
        while self.ready and not self.gone:
            self.take()
        while self.in_hand and not self.gone:
            self.handle()

    def lose(self) -> None:
        """Everything is forgotten, and read again; a write that is under way may be run or not."""
        seen["a member forgets everything"] += 1
        if self.pending is not None and self.member is not None and self.schedule.chance(0.5):
            self.server.late.append((self.member, self.pending))
        self.former = self.member
        self.server.disconnect(self.member)
        self.forget()
        self.gone = self.stopped
        self.schedule.happened += 1

    def join(self) -> None:
        self.member = self.server.join_group(self.batch, self.former)
        self.connected = True
        self.schedule.happened += 1

    def tick(self) -> None:
        if not (self.schedule.calm or self.schedule.chance(0.5)):
            return
        assert self.member is not None
        answer = self.server.tick(self.member)
        if answer is None:
            seen["a member is told that its lease has ended"] += 1
            raise Lost
        members, free = answer
        self.share.refresh()
        due = quota(members, str(self.member)) - len(self.share.slots)
        if due < 0:
            seen["slots are given up"] += 1
            seen["slots are given up with something in hand"] += bool(self.in_hand)
            self.share.leave(-due)
            self.lanes_due = True
            self.schedule.happened += 1
        elif due and free:
            taken = self.server.take(self.member, due)
            blocked = self.server.blocked([number for number, _ in taken])
            for number, place in taken:
                seen["a slot is taken in the midst of a batch"] += place.target is not None
                self.share.on_taken(number, place, blocked)
            self.lanes_due = True
            self.schedule.happened += len(taken)

    def read_on(self) -> None:
        self.lanes_due = False
        self.lanes = [LaneReader(self, lane) for lane in self.share.lanes()]
        seen["several lanes"] += len(self.lanes) > 1

    def fetch_due(self) -> None:
        if self.schedule.calm or self.schedule.chance(0.7):
            found = self.server.due(self.share.slots, self.share.known, self.due_rows)
            items = [Item(id, one.row.slot, one.row.key, one.row, 0, one.attempts, one.together) for id, one in found]
            for item in items:
                item.parked = True
            self.share.on_due(items)
            self.schedule.happened += len(items)

    def ask_for_fates(self) -> None:
        for transaction in self.doubtful[:]:
            if transaction.committed is None:
                continue
            self.doubtful.remove(transaction)
            if transaction.committed:
                self.share.acknowledge(transaction.claim.items, transaction.number)
            else:
                seen["a handler's transaction was rolled back"] += 1
                self.fail(transaction.claim)
            self.schedule.happened += 1

    def fail(self, claim: Claim) -> None:
        self.share.fail(claim.items, "no")
        self.settled.append(Settled(claim, "failed"))

    def send(self) -> None:
        if not (self.stopped or self.finishing):
            out = len(self.starting) + len(self.ready) + len(self.in_hand) + len(self.doubtful)
            while out < self.concurrency and (items := self.share.start(self.batch)):
                assert self.member is not None
                self.starting.append(Claim(self.member, items))
                out += 1
        write = self.share.plan_write()
        if write is None:
            assert not self.starting
            assert not self.settled
            if self.stopped:
                self.leave()
            return
        self.pending = Pending(write, self.settled, self.starting)
        self.settled, self.starting = [], []
        self.schedule.happened += 1

    def receive(self) -> None:
        assert self.member is not None
        assert self.pending is not None
        write, _, starting = self.pending
        waiting = self.schedule.run_write(self.member, self.pending)
        self.pending = None
        self.schedule.happened += 1
        if waiting is None:
            seen["a write is refused"] += 1
            raise Lost
        if not self.schedule.calm and self.schedule.chance(0.02):
            seen["the answer to a write is lost"] += 1
            raise Lost
        self.share.on_written(write, waiting)
        if self.stopped or self.finishing:
            for claim in starting:
                self.give_back(claim)
        else:
            self.ready += starting

    # -- its end

    def stop(self, *, finish: bool = False) -> None:
        """Leave, if there is nothing in hand to be waited for."""
        self.finishing = True
        self.stopped = not finish
        for claim in [*self.ready, *self.starting]:
            self.give_back(claim)
        self.ready.clear()
        self.starting.clear()
        self.gone = self.member is None

    def give_back(self, claim: Claim) -> None:
        seen["given back"] += 1
        self.share.give_back(claim.items)
        self.settled.append(Settled(claim, "given back"))

    def leave(self) -> None:
        assert self.member is not None
        if self.member in self.server.tables.members:
            if self.server.is_locked(self.member):
                return
            seen["left with something in hand"] += bool(self.in_hand)
            self.server.end_member(self.member)
        self.gone = True
        self.schedule.happened += 1

    def crash(self) -> None:
        """The process dies."""
        self.server.disconnect(self.member)
        if self.pending is not None and self.member is not None and self.schedule.chance(0.5):
            self.server.late.append((self.member, self.pending))
        self.gone = True
        self.schedule.happened += 1

    # -- its handlers

    def take(self) -> None:
        if self.ready:
            claim = self.ready.popleft()
            self.in_hand.append(claim)
            seen["several of a key together"] += len(claim.keys) < sum(row.key is not None for row in claim.rows)
            seen["a parked batch"] += len(claim.items) > 1 and claim.items[0].parked
            self.schedule.truth.on_handed_out(claim)
            self.schedule.happened += 1

    def handle(self) -> None:
        """A handler comes to its end."""
        if not self.in_hand:
            return
        claim = self.in_hand.pop(self.random.randrange(len(self.in_hand)))
        faults = {row.fault for row in claim.rows} if self.schedule.has_faults else set()
        self.schedule.happened += 1
        if "kill" in faults:
            seen["a handler killed its process"] += 1
            self.crash()
        elif "poison" in faults or (not self.schedule.calm and self.schedule.chance(self.schedule.failing)):
            seen["a batch failed" if len(claim.rows) > 1 else "an entry failed"] += 1
            self.fail(claim)
        elif self.schedule.chance(0.5):
            self.share.acknowledge(claim.items)
            self.settled.append(Settled(claim, "acknowledged"))
        elif transaction := self.server.acknowledge(claim.member, claim):
            self.doubtful.append(transaction)
        else:
            seen["an acknowledgement is refused"] += 1
            self.fail(claim)


# -- all of it


class Schedule:
    """One random life of a group."""

    def __init__(self, seed: int, *, crashes: bool = False, pooled: bool = False) -> None:
        self.random = random.Random(seed)
        self.crashes = crashes
        self.pooled = pooled
        self.calm = False
        self.has_faults = True
        self.now = 0.0
        self.happened = 0
        self.attempts = self.random.choice((1, 2, 3, 5))
        self.single = self.chance(0.4)
        self.backoff = self.random.choice((0.0, 1.0, 30.0, 500.0))
        self.failing = self.random.choice((0.0, 0.1, 0.4))
        self.faults = self.random.choice(((1, 0, 0), (10, 1, 0), (20, 1, 1)))
        names = [f"key {number}" for number in range(self.random.choice((1, 3, 8)))]
        self.keys = [(name, self.random.randrange(SLOTS)) for name in names]
        self.stream = Stream(self.random.randrange(3, 1000))
        self.truth = Truth(self)
        self.server = Server(self, Place(Covered()))
        self.writers = [Writer(self) for _ in range(self.random.randrange(1, 4))]
        self.writers.append(Writer(self, stays_open=True))
        self.workers = [Worker(self) for _ in range(self.random.randrange(1, 4))]

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def any_key(self) -> tuple[str | None, int]:
        return self.random.choice(self.keys) if self.chance(0.8) else (None, self.random.randrange(SLOTS))

    def row(self, id: int) -> Row:
        return next(row for row in self.stream.visible if row.id == id)

    def is_committed(self, id: int) -> bool:
        return any(row.id == id for row in self.stream.visible)

    def run_write(self, member: int, pending: Pending) -> set[str] | None:
        """On the server. What is said in it counts from now on."""
        row = self.server.tables.members.get(member)
        if row is None:
            return None
        for one in pending.settled:
            if one.how == "acknowledged":
                self.truth.on_acknowledged(one.claim)
            elif one.how == "given back":
                self.truth.on_given_back(one.claim)
            self.truth.put_down(one.claim)
        for claim in pending.starting:
            self.truth.on_started(claim)
        return self.server.write_down(member, pending.write)

    def run(self) -> None:
        happenings: list[tuple[Callable[[], object], float]] = [
            (self.let_write, 6),
            (self.let_work, 20),
            (self.let_read, 8),
            (self.let_take, 8),
            (self.let_handle, self.random.choice((2, 8))),
            (self.let_end_transaction, 2),
            (self.pass_time, 2),
            (self.server.run_late, 0.5),
            (self.let_join, 0.3),
            (self.let_leave, 0.3),
            (self.let_crash, self.random.choice((0, 0.3))),
            (self.let_pause, self.random.choice((0, 0.3))),
            (self.let_lose_connection, self.random.choice((0, 0.3))),
            (self.server.crash, 0.2 if self.crashes else 0),
        ]
        choices, weights = zip(*happenings, strict=True)
        for happening in self.random.choices(choices, weights, k=self.random.randrange(50, 700)):
            happening()
        self.calm = True
        self.end_of(self.writers[:-1])
        self.check_end()
        self.end_of(self.writers)
        self.check_end()
        self.has_faults = False
        seen["dead letters are handed out again"] += bool(self.truth.dead)
        self.server.redrive()
        self.check_end()
        assert {row.id for row in self.stream.visible} == self.truth.done

    # -- at rest

    def end_of(self, writers: Sequence[Writer]) -> None:
        for writer in writers:
            writer.end(committed=self.chance(0.7))

    def check_end(self) -> None:
        """First nothing waits but what failed, and what is behind it; then time passes, and nothing does."""
        for worker in self.workers:
            worker.paused_until = self.now
            if worker.finishing and not worker.gone:
                worker.stop()
        while True:
            self.come_to_rest()
            if {*self.server.tables.members} != {worker.member for worker in self.workers}:
                assert self.pooled
                self.now += LEASE + 1  # which has to end by itself
                continue
            parked = [one for one in self.server.tables.parked.values() if not one.dead]
            late = [one for one in parked if one.due is not None and one.due > self.now]
            ids, keys = {one.row.id for one in late}, {one.row.key for one in late if one.row.key is not None}
            left = [row for row in self.stream.visible if not self.truth.is_settled(row)]
            stuck = [row.id for row in left if row.id not in ids and row.key not in keys]
            assert not stuck, f"{stuck} wait, but not for an attempt at an entry of their keys"
            if not late:
                break
            seen["other keys went on while an entry waited"] += 1
            self.now = min(one.due for one in late if one.due is not None)
        self.check_tables()

    def check_tables(self) -> None:
        tables = self.server.tables
        assert {*tables.parked} == self.truth.dead
        assert not tables.acknowledged
        assert {*tables.members} == {worker.member for worker in self.workers}
        assert not self.truth.in_hand
        for slot in tables.slots:
            assert slot.member is not None
            assert not slot.in_flight
            assert not slot.held
        rows = self.stream.visible
        assert all(tables.slots[row.slot].place.covers(row.xid, row.id) for row in rows)
        running = [xid for xid in self.stream.running if any(slot.place.covered.covers(xid) for slot in tables.slots)]
        assert not running, "it covers what may still be committed"

    def come_to_rest(self) -> None:
        for _ in range(1000):
            before = self.happened
            while self.server.transactions:
                self.let_end_transaction()
            while self.server.late:
                self.server.run_late()
            self.workers = [worker for worker in self.workers if not worker.gone] or [Worker(self)]
            for worker in self.workers:
                worker.work()
            if self.happened == before:
                return
        raise AssertionError("it does not come to rest")

    # -- what happens

    @property
    def worker(self) -> Worker | None:
        """One that runs."""
        running = [worker for worker in self.workers if worker.runs]
        return self.random.choice(running) if running else None

    def let_write(self) -> None:
        self.random.choice(self.writers).step()

    def let_work(self) -> None:
        if worker := self.worker:
            worker.step()

    def let_read(self) -> None:
        if (worker := self.worker) and worker.lanes and worker.connected and not worker.stopped:
            self.random.choice(worker.lanes).step()

    def let_take(self) -> None:
        if worker := self.worker:
            worker.take()
            if self.crashes and worker.in_hand and self.chance(0.02):
                self.server.crash()

    def let_handle(self) -> None:
        if worker := self.worker:
            worker.handle()

    def let_end_transaction(self) -> None:
        if self.server.transactions:
            transaction = self.random.choice(self.server.transactions)
            self.server.end_transaction(transaction, committed=not self.has_faults or self.chance(0.7))

    def pass_time(self) -> None:
        self.now += self.random.choice((0.1, 1.0, 10.0, 40.0))

    def let_join(self) -> None:
        self.workers = [worker for worker in self.workers if not worker.gone]
        if len(self.workers) < 4:
            self.workers.append(Worker(self))

    def let_leave(self) -> None:
        if (worker := self.worker) and not worker.stopped:
            worker.stop(finish=self.chance(0.5) and not worker.finishing)

    def let_crash(self) -> None:
        if worker := self.worker:
            seen["a member crashed"] += 1
            worker.crash()

    def let_pause(self) -> None:
        """The process is stopped: its connection stays, its lease does not."""
        if worker := self.worker:
            seen["a member is paused"] += 1
            worker.paused_until = self.now + self.random.choice((LEASE / 2, LEASE * 2))

    def let_lose_connection(self) -> None:
        """The server notices at once, the member when it goes on."""
        if worker := self.worker:
            worker.connected = False
            self.server.disconnect(worker.member)


@pytest.mark.parametrize(
    ("crashes", "pooled", "known"),
    [(False, False, ()), (True, False, (406,)), (False, True, ()), (True, True, (2, 3085))],
    ids=["direct", "direct, server crashes", "pooled", "pooled, server crashes"],
)
def test_the_promises_hold_under_every_schedule(crashes: bool, pooled: bool, known: Sequence[int]) -> None:
    """`known` have found something."""
    for seed in (*known, *range(SEED, SEED + SCHEDULES)):
        try:
            Schedule(seed, crashes=crashes, pooled=pooled).run()
        except Exception as error:
            raise AssertionError(f"PGPUBSUB_SIM_SEED={seed} PGPUBSUB_SIM_SCHEDULES=1 repeats this") from error
    if SCHEDULES >= 1000:
        assert not [happening for happening in HAPPENINGS if not seen[happening]], "these are never met"


HAPPENINGS = [
    "past an open transaction",
    "a former membership was ended",
    "a connection has ended",
    "a lease has ended",
    "a membership is held by a transaction",
    "a membership ended with something in hand",
    "a member forgets everything",
    "a member crashed",
    "a member is paused",
    "a member is told that its lease has ended",
    "the answer to a write is lost",
    "a write is refused",
    "a write is run when its member has forgotten it",
    "an acknowledgement is refused",
    "handed out when the lease had ended",
    "a handler killed its process",
    "a handler's transaction was rolled back",
    "an entry failed",
    "a batch failed",
    "a parked batch",
    "several of a key together",
    "set aside",
    "dead letters are handed out again",
    "other keys went on while an entry waited",
    "given back",
    "left with something in hand",
    "several lanes",
    "a lane came to the end of its target",
    "a slot is taken in the midst of a batch",
    "slots are given up",
    "slots are given up with something in hand",
]
