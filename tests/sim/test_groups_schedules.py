"""Members of a group under thousands of random schedules: a simulated stream, a group's tables, and a shell for each
`Share`.

The stream has transaction ids and snapshots as a primary has them; transactions commit late, roll back, or stay open
all along. The tables do what the statements of `schema/0002_groups.sql` do, each at one stroke. Members join, leave,
crash, lose their connection with a statement under way, and sleep through their lease; handlers fail, kill their
process, acknowledge with the member or in a transaction of their own, which may end when the member is long gone.
A server that crashes forgets what was not to be durable, and a pooler hides that. Between any two statements anything
may happen.

Dead letters are sent again, and the group is set elsewhere, while all of that goes on.

What is checked: every committed entry is acknowledged once, or set aside, and is not handed out again then; what an
entry's appender could have seen of its key is settled before it is handed out; no two of a key are in hand at members
that are valid; an entry is set aside only if it failed alone, or nothing else was in hand when its member ended, and it
is handed out no more often than is allowed, and once more; where nothing fails but by the entries' own fault, no other
entry is set aside, and each that kills its process is; while some entries wait for another attempt, those of other keys
are all handled. A failure names its seed; PGPUBSUB_SIM_SEED=that PGPUBSUB_SIM_SCHEDULES=1 repeats it.
"""

from __future__ import annotations

import random
from bisect import insort
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import NamedTuple
from uuid import UUID

import pytest

from pgpubsub.core import groups
from pgpubsub.core.groups import MANY, Share
from pgpubsub.core.position import Anchor, Covered, Position, Snapshot, spans
from pgpubsub.core.reading import Batch, Look, Measure, Newest, Page, Reading
from pgpubsub.core.slots import SLOTS, UNSEEN, Item, Lane, Parked, Place, Write, quota
from tests.sim.simulation import Simulation, schedules

SCHEDULES = schedules(100)

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
    in_hand: bool = False


@dataclass(slots=True)
class MemberRow:
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
            ids = sorted(id for id, one in self.tables.parked.items() if one.row.key == key and not one.dead)
            line = [self.tables.parked[id] for id in ids]
            if line:
                found.add(key)
                due = self.now if line[0].due is None else line[0].due
                goes_on = True
                for place, one in enumerate(line, 1):
                    goes_on = goes_on and not one.in_hand and (one.due is None or one.due <= self.now)
                    goes_on = goes_on and place <= self.schedule.lane
                    one.due = due if place == 1 or goes_on else None
                    seen["several of a line are due"] += place > 1 and goes_on
        return found

    def end_member(self, member: int) -> None:
        tables = self.tables
        settled = {id for whose, ids in tables.acknowledged.values() if whose == member for id in ids}
        its_slots = {number for number, slot in enumerate(tables.slots) if slot.member == member}
        had = [id for number in its_slots for id in tables.slots[number].in_flight]
        had += [id for id, one in tables.parked.items() if one.in_hand and one.row.slot in its_slots]
        alone = sum(id not in settled for id in had) == 1
        keys = set()
        for id in settled:
            if id in tables.parked and not tables.parked[id].dead:
                keys.add(tables.parked.pop(id).row.key)
        for one in tables.parked.values():
            if one.in_hand and one.row.slot in its_slots:
                keys.add(one.row.key)
                seen["a suspect's member has ended"] += one.attempts > self.schedule.attempts
                one.in_hand = False
                one.together = 0 if alone else min(-1, -abs(one.together))
        for number in its_slots:
            slot = tables.slots[number]
            for id, attempts in [*[(id, 1) for id in slot.in_flight], *[(id, 0) for id in slot.held]]:
                if id not in settled:
                    row = self.schedule.row(id)
                    if id in tables.parked:
                        assert tables.parked[id].dead
                        seen["a dead letter that is read again comes back"] += 1
                    together = MANY if attempts == 0 else 0 if alone else -1
                    tables.parked[id] = ParkedRow(row, attempts, together, self.now if row.key is None else None)
                    keys.add(row.key)
            slot.member, slot.in_flight, slot.held = None, (), ()
        self.promote(key for key in keys if key is not None)
        tables.acknowledged = {number: one for number, one in tables.acknowledged.items() if one[0] != member}
        tables.members.pop(member, None)
        self.schedule.truth.forget(member)
        self.flush()

    def join_group(self, former: int | None) -> int:
        if former in self.tables.members and not self.is_locked(former):
            seen["a former membership was ended"] += 1
            self.end_member(former)
        member = self.number()
        self.tables.members[member] = MemberRow(self.now + self.schedule.lease)
        self.flush()
        return member

    def tick(self, member: int) -> tuple[Sequence[str], int] | None:
        members = self.tables.members
        if member not in members:
            return None
        members[member].until = self.now + self.schedule.lease
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
                parked.in_hand = True
                parked.together, parked.due = started.together, self.now + started.delay
        for number in write.noted:
            tables.acknowledged.pop(number, None)
        waiting = set()
        if write.done or write.parked:
            rows = [tables.parked.pop(id).row for id in write.done if id in tables.parked]
            assert len({one.id for one in write.parked}) == len(write.parked), "two things are said of one entry"
            held = {self.schedule.row(id).key for state in write.slots for id in state.held}
            rows += [self.park(one, held) for one in write.parked]
            keys = {row.key for row in rows if row.key is not None}
            assert keys <= write.keys
            waiting = self.promote(keys)
        if write.durable:
            self.flush()
        return waiting

    def park(self, one: Parked, held: Collection[str | None]) -> Row:
        """Part of `write_down`. Of the keys `held`, others wait for what is in flight."""
        tables, row = self.tables, self.schedule.row(one.id)
        former = tables.parked.get(one.id)
        seen["a dead letter that is read again comes back"] += former is not None and former.dead
        seen["a lane is full"] += not one.attempts and row.key in held
        if one.dead:
            self.schedule.truth.on_dead(row)
        due = None if one.delay is None else self.now + one.delay
        tables.parked[one.id] = ParkedRow(row, one.attempts, one.together, due, one.dead)
        return row

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

    def redrive(self, ids: Collection[int] | None = None) -> None:
        """Let dead letters be handed out again."""
        keys = set()
        for id, one in self.tables.parked.items():
            if one.dead and (ids is None or id in ids):
                one.dead, one.attempts, one.together, one.in_hand = False, 0, 1, False
                one.due = self.now if one.row.key is None else None
                keys.add(one.row.key)
                self.schedule.truth.on_redriven(one.row)
        self.promote(key for key in keys if key is not None)
        self.flush()

    def seek(self, place: Place) -> None:
        """Let the group go on there."""
        tables = self.tables
        for member in list(tables.members):
            self.end_member(member)
        theirs = {slot.member for slot in tables.slots}
        tables.acknowledged = {number: one for number, one in tables.acknowledged.items() if one[0] not in theirs}
        tables.parked = {id: one for id, one in tables.parked.items() if one.dead}
        tables.slots = [SlotRow(None, place) for _ in tables.slots]
        self.schedule.truth.on_sought(place)
        self.flush()

    def run_late(self) -> None:
        """Run a statement that its member knows nothing of any more."""
        if self.late:
            done = self.schedule.run_write(*self.late.pop()) is not None
            seen["a write is run when its member has forgotten it" if done else "a write is refused"] += 1

    def crash(self) -> None:
        """Forget what was not flushed, if that is so. No membership outlives it."""
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
        self.started: list[Claim] = []
        """That it is written down of them is all that counts here: they are to be handed out, or were."""
        self.in_hand: list[Claim] = []
        """At members that are valid, for all that the server knows."""
        self.attempts: Counter[int] = Counter()
        self.deaths: Counter[int] = Counter()
        """How many processes an entry has killed."""
        self.blamed: set[int] = set()
        """What failed alone, or was alone when its member ended, and was not handed out since."""
        self.late: set[int] = set()
        """What was set aside and comes again, when others of its key may have gone past it."""
        self.again: set[int] = set()
        """What was set aside, and is read again."""

    def is_settled(self, row: Row) -> bool:
        return row.id in self.done or row.id in self.dead

    def is_past(self, row: Row) -> bool:
        """Whether nothing needs to wait for it."""
        return self.is_settled(row) or row.id in self.late or not self.schedule.is_committed(row.id)

    def on_started(self, claim: Claim) -> None:
        """It is written down that it will be handed out."""
        claim.started = True
        self.started.append(claim)
        self.attempts.update(claim.ids)
        self.blamed -= claim.ids

    def on_handed_out(self, claim: Claim) -> None:
        server = self.schedule.server
        if claim.member not in server.tables.members:
            seen["handed out when the lease had ended"] += 1
            return
        before: set[Row] = set()
        for row in claim.rows:
            assert not self.is_settled(row), "what is settled is handed out"
            for earlier in row.earlier:
                there = self.is_past(earlier) or earlier in before
                assert there, f"{row.id} is handed out before {earlier.id}, which comes first"
            before.add(row)
        for other in self.in_hand:
            assert not other.ids & claim.ids, "an entry is in hand twice"
            assert not other.keys & claim.keys, "two of a key are in hand"
        self.in_hand.append(claim)
        if not self.schedule.crashes:
            for id in claim.ids:
                # Once more alone, if the last one failed in a batch; and with nothing else in hand, if a member ended.
                assert self.attempts[id] <= self.schedule.attempts + 2, f"{id} is handed out too often"

    def on_acknowledged(self, claim: Claim) -> None:
        """In a way that counts."""
        for row in claim.rows:
            assert not self.is_settled(row), "what is settled is acknowledged"
            self.done.add(row.id)
        for row in claim.rows:
            assert all(self.is_past(one) for one in row.earlier)
        self.put_down(claim)

    def on_failed(self, claim: Claim) -> None:
        if len(claim.rows) == 1:
            self.blamed |= claim.ids

    def on_killed(self, claim: Claim) -> None:
        """It has ended its process, which may have lost its lease, and then it does not count."""
        for row in claim.rows:
            if row.fault == "kill" and claim in self.started:
                self.deaths[row.id] += 1
                most = self.schedule.attempts + 1
                assert self.schedule.crashes or self.deaths[row.id] <= most, f"{row.id} has killed too often"

    def on_dead(self, row: Row) -> None:
        assert not self.is_settled(row), "what is settled is set aside"
        assert self.schedule.crashes or row.id in self.blamed, f"{row.id} is set aside, but may not be to blame"
        assert self.attempts[row.id], f"{row.id} is set aside, but never was handed out"
        assert row.fault or not self.schedule.peaceful, f"{row.id} is set aside for the fault of another"
        assert all(self.is_past(one) for one in row.earlier)
        self.dead.add(row.id)
        self.again.discard(row.id)
        seen["set aside"] += 1
        seen["what kills is set aside"] += row.fault == "kill"

    def on_given_back(self, claim: Claim) -> None:
        """It never was handed out."""
        if claim.started and not self.schedule.crashes:
            self.attempts.subtract(claim.ids)

    def put_down(self, claim: Claim) -> None:
        self.in_hand = [one for one in self.in_hand if one is not claim]
        self.started = [one for one in self.started if one is not claim]

    def on_redriven(self, row: Row) -> None:
        """It was set aside, and is to be handed out again."""
        self.dead.discard(row.id)
        self.done.discard(row.id)
        self.forget_attempts({row.id})
        self.late.add(row.id)

    def on_sought(self, place: Place) -> None:
        """From there on all comes again, what was set aside too, which stays among the dead letters."""
        rows = {row.id for row in self.schedule.stream.visible}
        past = {row.id for row in self.schedule.stream.visible if place.covers(row.xid, row.id)}
        self.again |= self.dead - past
        self.dead &= past
        self.done = past - self.dead
        self.forget_attempts(rows)
        self.late.clear()
        self.in_hand.clear()
        self.started.clear()

    def forget_attempts(self, ids: Collection[int]) -> None:
        self.blamed.difference_update(ids)
        for id in ids:
            del self.attempts[id], self.deaths[id]

    def forget(self, member: int) -> None:
        """It is not a member any more."""
        seen["a membership ended with something in hand"] += any(one.member == member for one in self.in_hand)
        had = [id for one in self.started if one.member == member for id in one.ids]
        if len(had) == 1:
            self.blamed.update(had)
        self.in_hand = [one for one in self.in_hand if one.member != member]
        self.started = [one for one in self.started if one.member != member]


# -- members


class Claim:
    """What was handed out together."""

    def __init__(self, member: int, items: Sequence[Item], attempts: int) -> None:
        self.member = member
        self.items = items
        self.rows: Sequence[Row] = [item.entry for item in items]
        self.ids = {row.id for row in self.rows}
        self.keys = {row.key for row in self.rows if row.key is not None}
        self.started = False
        """Whether that is written down."""
        self.is_suspect = items[0].parked and items[0].together < 0 and items[0].attempts > attempts
        """Whether it had had all its attempts."""


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
        if (self.lane.start.target is not None or self.lane.start == UNSEEN) and batch.after.target is None:
            seen["a lane came to the end of its target"] += 1
            worker.lanes_due = True
            self.schedule.happened += 1
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
        self.batch = self.random.choice((1, 1, 2, 3, 25))
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
        self.member = self.server.join_group(self.former)
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
        seen["a suspect failed"] += claim.is_suspect
        self.share.fail(claim.items, "no")
        self.settled.append(Settled(claim, "failed"))

    def send(self) -> None:
        if not (self.stopped or self.finishing):
            out = self.out
            while len(out) < self.concurrency and (items := self.share.start(self.batch)):
                assert self.member is not None
                claim = Claim(self.member, items, self.schedule.attempts)
                assert not any(one.is_suspect for one in out), "something is started beside a suspect"
                if claim.is_suspect:
                    assert not out, "a suspect is started beside something"
                    assert len(items) == 1
                self.starting.append(claim)
                out.append(claim)
            if 0 < len(out) < self.concurrency and not any(one.is_suspect for one in out):
                seen["a suspect waits for the others to land"] += self.awaits_suspect
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

    @property
    def out(self) -> list[Claim]:
        """Claims of which nothing has been said."""
        return [*self.starting, *self.ready, *self.in_hand, *[one.claim for one in self.doubtful]]

    @property
    def awaits_suspect(self) -> bool:
        """Whether it has read one."""
        parked = [self.server.tables.parked.get(id) for id in self.share.known]
        limit = self.schedule.attempts
        return any(
            one and one.together < 0 and one.attempts >= limit and not (one.in_hand or one.dead) for one in parked
        )

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
        if not (self.schedule.calm or self.schedule.peaceful) and self.schedule.chance(0.02):
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
            seen["a suspect is handed out alone"] += claim.is_suspect
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
            seen["a handler killed its process with others in hand"] += bool(self.in_hand)
            self.schedule.truth.on_killed(claim)
            self.crash()
        elif "poison" in faults or (not self.schedule.calm and self.schedule.chance(self.schedule.failing)):
            seen["a batch failed" if len(claim.rows) > 1 else "an entry failed"] += 1
            self.fail(claim)
        elif self.schedule.chance(0.5):
            seen["a suspect was innocent"] += claim.is_suspect
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
        self.peaceful = not (crashes or pooled) and self.chance(0.4)
        """Whether nothing fails, or ends, but by the fault of an entry."""
        self.lease = inf if self.peaceful else LEASE
        self.lane = self.random.choice((1, 2, 5, 100))
        self.backoff = self.random.choice((0.0, 1.0, 30.0, 500.0))
        self.failing = 0.0 if self.peaceful else self.random.choice((0.0, 0.1, 0.4))
        self.faults = self.random.choice(((1, 0, 0), (10, 1, 0), (20, 1, 1)))
        if self.peaceful:
            self.faults = self.random.choice(((10, 0, 1), (30, 0, 1), (20, 1, 1)))
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

    @property
    def fatal(self) -> set[int]:
        """What kills whoever handles it."""
        return {row.id for row in self.stream.visible if row.fault == "kill"}

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
            else:
                self.truth.on_failed(one.claim)
            self.truth.put_down(one.claim)
        for claim in pending.starting:
            self.truth.on_started(claim)
        return self.server.write_down(member, pending.write)

    def rarely(self, *weights: float) -> float:
        """One of these weights, of what does not happen where there is peace."""
        return 0.0 if self.peaceful else self.random.choice(weights)

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
            (self.let_join, 2 if self.peaceful else 0.3),
            (self.let_leave, self.rarely(0.3)),
            (self.let_crash, self.rarely(0, 0.3)),
            (self.let_pause, self.rarely(0, 0.3)),
            (self.let_lose_connection, self.rarely(0, 0.3)),
            (self.let_redrive, self.random.choice((0, 0.3))),
            (self.let_seek, self.rarely(0, 0.2)),
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
        for _ in range(10_000):
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
                self.check_tables()
                return
            seen["other keys went on while an entry waited"] += 1
            self.now = min(one.due for one in late if one.due is not None)
        raise AssertionError("there always is another attempt")

    def check_tables(self) -> None:
        tables, truth = self.server.tables, self.truth
        assert all(one.dead for one in tables.parked.values())
        assert truth.dead <= {*tables.parked}
        assert {*tables.parked} - truth.dead <= truth.again & truth.done
        assert not self.has_faults or not self.peaceful or self.fatal <= truth.dead, "what kills is not set aside"
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
            self.server.end_transaction(transaction, committed=self.peaceful or not self.has_faults or self.chance(0.7))

    def pass_time(self) -> None:
        self.now += self.random.choice((0.1, 1.0, 10.0, 40.0))

    def let_redrive(self) -> None:
        """Not what is read again: it would be handled twice."""
        some = {id for id in self.truth.dead if self.chance(0.5)}
        seen["dead letters are handed out again meanwhile"] += bool(some)
        self.server.redrive(some)

    def let_seek(self) -> None:
        if not self.server.transactions:  # it waits for them
            seen["the group is set elsewhere"] += 1
            self.server.seek(self.random.choice((Place(Covered()), self.random.choice(self.server.tables.slots).place)))

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
    "a handler killed its process with others in hand",
    "a suspect is handed out alone",
    "a suspect waits for the others to land",
    "a suspect was innocent",
    "a suspect failed",
    "a suspect's member has ended",
    "what kills is set aside",
    "a lane is full",
    "several of a line are due",
    "a handler's transaction was rolled back",
    "an entry failed",
    "a batch failed",
    "a parked batch",
    "several of a key together",
    "set aside",
    "dead letters are handed out again",
    "dead letters are handed out again meanwhile",
    "the group is set elsewhere",
    "a dead letter that is read again comes back",
    "other keys went on while an entry waited",
    "given back",
    "left with something in hand",
    "several lanes",
    "a lane came to the end of its target",
    "a slot is taken in the midst of a batch",
    "slots are given up",
    "slots are given up with something in hand",
]


def run(seed: int, crashes: bool, pooled: bool) -> None:
    schedule = Schedule(seed, crashes=crashes, pooled=pooled)
    groups.LANE = schedule.lane
    schedule.run()


SIMULATIONS = [
    Simulation(
        f"groups {kind}".strip(),
        partial(run, crashes="crashes" in kind, pooled="pooled" in kind),
        seen,
        HAPPENINGS,
        enough=10**9,  # all four together: see below
        small={"pgpubsub.core.groups.LANE": groups.LANE},
    )
    for kind in ("", "crashes", "pooled", "pooled crashes")
]


@pytest.mark.parametrize("simulation", SIMULATIONS, ids=lambda one: one.name)
def test_the_promises_hold_under_every_schedule(simulation: Simulation) -> None:
    simulation.check(SCHEDULES)
    if SCHEDULES >= 1000:
        assert not simulation.never_met(), "these are never met"
