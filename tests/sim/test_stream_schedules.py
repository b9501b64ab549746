"""Readers of streams under thousands of random schedules: a simulated cluster, writers, and a shell for each `Reading`.

The cluster has transaction ids, snapshots and a log as PostgreSQL has them. A transaction takes its id early or late,
appends to several streams, commits, rolls back, is prepared, or stays open all along. A server that crashes forgets
what it had not flushed, and hands it out again; a standby applies the log behind its primary, and does not tell what is
running; a standby that replaces its primary may lack the newest of it. Between any two statements of a reader anything
may happen. Readers stop at any entry and go on from the text of a position, that one or an older; answers are lost.

What is checked are the promises of `core.position`: every committed entry comes to a reader once, whatever the
appender of another could have seen comes before that, and at rest nothing is missing although a transaction is open.
Retention removes old entries all along, and a reader is told of it exactly if it had not got some of them. When history
was rewritten, a reader says so exactly if its anchor vanished, and gets all of the new one; only where a failover and
retention cannot be told apart may it say so in vain. A failure names its seed; PGPUBSUB_SIM_SEED=that
PGPUBSUB_SIM_SCHEDULES=1 repeats it.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from pgpubsub import GapReason
from pgpubsub.core.position import Anchor, Position, Snapshot, spans
from pgpubsub.core.reading import EPOCH, Ask, Batch, Find, Look, Measure, Newest, Page, Reading, Step
from pgpubsub.core.trimmed import Trimmed
from tests.sim.simulation import Simulation, schedules

SCHEDULES = schedules(1500)

STREAMS = (-3, 8)
LOOK = 3
"""Entries that are too many for one look; small, so that it is met."""
LISTED = 3
"""Transactions that retention lists; the same."""

seen: Counter[str] = Counter()
"""What has happened in all schedules: a simulation proves nothing of what it never meets."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """An entry, committed or not."""

    stream: int
    id: int
    xid: int
    microseconds: int
    before: int
    """So many of its stream were committed when it was appended: these its appender could have seen."""

    @property
    def order(self) -> tuple[int, int]:
        return self.xid, self.id

    @property
    def appended_at(self) -> datetime:
        return EPOCH + timedelta(microseconds=self.microseconds)


class Record(NamedTuple):
    """What the log says of a transaction."""

    kind: str
    xid: int
    row: Row | None = None
    removed: tuple[Row, ...] = ()


class Server:
    """A primary, or a standby as far as it has applied the log."""

    def __init__(self, next_xid: int, log: Iterable[Record] = (), *, timeline: int = 1, recovery: bool = False) -> None:
        self.next_xid = next_xid
        self.completed = next_xid - 1
        self.next_id = 1
        self.timeline = timeline
        self.recovery = recovery
        self.running: set[int] = set()
        self.prepared: set[int] = set()
        self.failed: set[int] = set()
        self.table: dict[int, list[Row]] = defaultdict(list)
        self.history: dict[int, list[Row]] = defaultdict(list)
        """What is committed, in the order of the commits."""
        self.removed: dict[int, set[Row]] = defaultdict(set)
        """What retention has removed of it."""
        self.applied = 0
        for record in log:
            self.apply(record)

    def assign(self) -> int:
        """A new transaction id."""
        self.running.add(self.next_xid)
        self.next_xid += 1
        return self.next_xid - 1

    def apply(self, record: Record) -> None:
        self.applied += 1
        while self.next_xid <= record.xid:  # those before it must have begun, too
            self.assign()
        if record.kind == "append":
            assert record.row is not None
            self.table[record.row.stream].append(record.row)
            self.next_id = max(self.next_id, record.row.id + 1)
        elif record.kind == "prepare":
            self.prepared.add(record.xid)
        elif record.kind == "restart":
            self.failed |= self.running - self.prepared
            self.running &= self.prepared
            self.completed = self.next_xid - 1
        else:
            for row in record.removed:
                self.removed[row.stream].add(row)
            self.end(record.xid, committed=record.kind in ("commit", "trim"))

    def end(self, xid: int, *, committed: bool) -> None:
        self.running.discard(xid)
        self.prepared.discard(xid)
        self.completed = max(self.completed, xid)
        if committed:
            for stream, rows in self.table.items():
                self.history[stream] += [row for row in rows if row.xid == xid]
        else:
            self.failed.add(xid)

    def snapshot(self) -> str:
        """As text."""
        xmax = self.completed + 1
        running = sorted([xid for xid in self.running if xid < xmax])
        xmin = running[0] if running else xmax
        return f"{xmin}:{xmax}:{'' if self.recovery else ','.join(map(str, running))}"

    def is_running(self, xid: int) -> bool:
        return xid in self.running or xid > self.completed

    def visible(self, stream: int) -> list[Row]:
        """What a statement sees that begins now."""
        ended = [row for row in self.table[stream] if not self.is_running(row.xid)]
        return [row for row in ended if row.xid not in self.failed and row not in self.removed[stream]]

    def trimmed(self, stream: int) -> Trimmed | None:
        """What retention says that it has removed."""
        removed = sorted(self.removed[stream], key=lambda row: row.order)
        if not removed:
            return None
        ids = {row.xid: row.id for row in removed}
        listed = tuple(sorted(ids.items(), reverse=True)[:LISTED])
        last = max(row.id for row in removed)
        seen["more was removed than is listed"] += len(ids) > LISTED
        return Trimmed(len(removed), last, False, as_newest(removed[-1]), listed)


class Writer:
    """Has one transaction at a time."""

    def __init__(self, schedule: Schedule, *, stays_open: bool = False) -> None:
        self.schedule = schedule
        self.stays_open = stays_open
        self.xid: int | None = None
        self.appended = 0

    def step(self) -> None:
        kinds = ["take an id", "append", "commit", "roll back", "prepare"]
        weights = [1, 6, 0, 0, 0] if self.stays_open else [1, 8, 3, 1, 1]
        kind = self.schedule.random.choices(kinds, weights)[0]
        if kind == "append":
            self.append()
        elif self.xid is None:
            self.xid = self.schedule.primary.assign()
        elif kind == "prepare":
            seen["prepared"] += 1
            self.schedule.write("prepare", self.xid, flush=True)
            self.forget()
        elif kind != "take an id":
            self.end("commit" if kind == "commit" else "abort")

    def append(self) -> None:
        server = self.schedule.primary
        if self.xid is None:
            self.xid = server.assign()
        elif not self.appended and self.xid < server.completed:
            seen["an id was taken long before the append"] += 1
        stream = self.schedule.random.choice(STREAMS)
        row = Row(stream, server.next_id, self.xid, self.schedule.time(), len(server.history[stream]))
        self.schedule.write("append", self.xid, row)
        self.appended += 1

    def end(self, kind: str) -> None:
        assert self.xid is not None
        if not self.appended:
            seen[f"{kind} without entries"] += 1
        self.schedule.write(kind, self.xid, flush=kind == "commit" and self.appended > 0)
        self.forget()

    def forget(self) -> None:
        self.xid = None
        self.appended = 0


class Saved(NamedTuple):
    """Where a reader could go on."""

    token: str | None
    got: int
    newest: Row | None
    excused: frozenset[Row] = frozenset()
    last: Row | None = None
    """The entry behind which that is, if it is behind one of a batch."""


class Reader:
    """The shell of a `Reading`, and what is true of it."""

    def __init__(self, schedule: Schedule, stream: int) -> None:
        self.schedule = schedule
        self.random = schedule.random
        self.stream = stream
        self.page_size = self.random.randrange(1, 4)
        self.log: list[Row | None] = []
        """What it has got; None: history was rewritten."""
        self.saved: list[Saved] = []
        self.resume(Saved(None, 0, None))

    def resume(self, saved: Saved) -> None:
        """Forget all but that."""
        start = None if saved.token is None else Position.decode(saved.token, self.stream)
        self.birth = None if start is None else start.birth
        self.reading = Reading(self.stream, start, standby=self.schedule.standby)
        self.to_end = start is None and self.schedule.chance(0.2)
        if self.to_end:
            self.reading.on_many()
        self.saved = [one for one in self.saved if one.got < saved.got]
        self.saved.append(saved)
        self.newest = saved.newest
        self.last_batch = [] if saved.last is None else [saved.last]
        self.log = self.log[: saved.got]
        rewound = self.log[::-1].index(None) if None in self.log else len(self.log)
        self.once = set(self.log[len(self.log) - rewound :])
        self.ever = {row for row in self.log if row is not None}
        self.excused = set(saved.excused)
        """What was removed before it began, or what it was told of."""
        self.disconnect()

    def disconnect(self) -> None:
        self.connected = False
        self.server = self.random.choice(self.schedule.readable)
        self.floor: tuple[Page, int | None] | None = None
        self.prefix = 0

    def save(self, position: Position, last: Row | None = None) -> Saved:
        token = position.encode()
        assert Position.decode(token, self.stream) == position
        self.saved.append(Saved(token, len(self.log), self.newest_of(position), frozenset(self.excused), last))
        return self.saved[-1]

    def newest_of(self, position: Position) -> Row | None:
        """The newest entry that it covers, which is its anchor."""
        covered = position.target or position.covered
        rows = [row for row in self.schedule.primary.history[self.stream] if covered.covers(row.xid)]
        newest = max(rows, key=lambda row: row.order, default=None)
        assert position.anchor == (newest and Anchor(newest.id, newest.microseconds))
        below = [0, 3] if newest is None else [newest.xid + 1]
        assert covered.below in below, "it covers what may be handed out again"
        return newest

    # -- what the shell does

    def connect(self) -> bool:
        server, reading = self.server, self.reading
        self.connected, self.recovery = False, server.recovery
        reading.standby = server.recovery or (self.schedule.standby and self.schedule.chance(0.5))
        before = {reading._anchored_on, server.timeline} - {0}
        self.note_birth(reading.on_session(self.schedule.birth, 0 if server.recovery else server.timeline))
        anchors = reading.anchors
        expected = [*anchors, *reading.witnesses] if anchors else []
        there = {as_newest(row) for row in server.visible(self.stream)}
        found = {number for number, one in enumerate(expected) if one in there}
        passed = reading.passed(expected, server.trimmed(self.stream))
        seen["an anchor was removed"] += 0 in passed and 0 not in found
        found.update(passed)
        witnesses = range(len(anchors), len(expected))
        lost = [expected[number] for number in (0, *witnesses) if number not in found] if expected else []
        if server.recovery and any(one.xid >= Snapshot.parse(server.snapshot()).xmin for one in lost):
            seen["a standby that lags behind a position"] += 1
            return False
        reason = reading.on_anchors(found, witnesses=found.issuperset(witnesses)) if expected else None
        common = sorted(found.intersection(range(1, len(anchors)))) if reason else []
        rows = {as_newest(row): row for row in (*self.ever, *([self.newest] if self.newest else []))}
        history, removed = server.history[self.stream], server.removed[self.stream]
        vanished = [one for one in lost if one not in rows or rows[one] not in history]
        seen["a witness vanished, and its anchor did not"] += bool(vanished) and vanished[0] is not expected[0]
        if reason and not vanished:
            assert all(rows[one] in removed for one in lost), "history is the same"
            assert len(before) == 2, "on one timeline that is known"
            seen["it is not known whether a failover or retention took an anchor"] += 1
        assert reason or not vanished
        assert reason or self.newest is None or self.newest in history
        gone = [row for row in self.last_batch if row not in history]
        assert reason or not gone, "what was delivered last has vanished, and nobody is told"
        if reason:
            self.last_batch = []
            seen["rewound to what both histories share" if common else "rewound to the beginning"] += 1
            assert reading.position.anchor == (anchors[common[0]].anchor if common else None)
            self.log.append(None)
            self.once.clear()
        elif server.timeline > 1 and anchors:
            seen["not rewound by a failover"] += 1
        self.connected = True
        self.newest = self.newest_of(reading.position)
        self.note_trimmed()
        return True

    def note_birth(self, reason: GapReason | None) -> None:
        """Whether the database was restored from a dump since this reader began."""
        born, self.birth = self.birth, self.schedule.birth
        assert reason is (None if born in (None, self.birth) else GapReason.RESTORED)
        if reason is not None:
            seen["restored from a dump"] += 1
            self.newest = None
            self.last_batch = []
            self.log.append(None)
            self.once.clear()

    def note_trimmed(self, step: Step | None = None) -> None:
        """Each answer has what retention has removed, if it is not what is known."""
        if isinstance(step, Ask | Page):  # but that; and pages are read elsewhere
            return
        reading, trimmed = self.reading, self.server.trimmed(self.stream)
        position, removed = reading.position, self.server.removed[self.stream]
        if trimmed is None or (reading.trimmed is not None and trimmed.removed == reading.trimmed.removed):
            return
        if position.covered.below == 0 and not position.last:
            self.excused |= removed
        covered, target = position.covered, position.target
        missed = {row for row in removed if not covered.covers(row.xid)}
        if target is not None:
            missed = {row for row in missed if not target.covers(row.xid) or row.id > position.last}
        if reading.on_trimmed(trimmed) is None:
            assert missed <= self.excused, "lost in silence"
            seen["nothing was missed of what was removed"] += 1
        else:
            assert missed or len({row.xid for row in removed}) >= LISTED, "a false alarm"
            seen["a gap of retention" if missed else "a false alarm"] += 1
            seen["a gap of retention in the midst of a batch"] += bool(missed and target)
            self.excused |= missed

    def step(self) -> bool:
        """One statement, and whether there is more to do."""
        if not self.connected or (self.recovery != self.server.recovery and self.schedule.chance(0.3)):
            return self.connect()
        self.schedule.note_shown(self.server)
        got = self.ask()
        if self.connected:
            self.newest = self.newest_of(self.reading.position)
            if self.to_end and (self.reading.position.target or not self.reading.in_midst):
                self.pass_over()
            elif self.schedule.chance(0.03) and not self.schedule.calm:
                self.reading.on_many()
            if not self.to_end and self.schedule.chance(0.05):
                self.save(self.reading.position)
        return got or self.reading.in_midst

    def ask(self) -> bool:
        """Answer the next step, and report the answer. Whether there was a batch, or anything may have changed."""
        reading, step = self.reading, self.reading.next_step()
        rows = sorted(self.server.visible(self.stream), key=lambda row: row.id)
        snapshot = Snapshot.parse(self.server.snapshot())
        if not isinstance(step, Page) and self.lost():
            return True
        self.note_trimmed(step)
        match step:
            case Look(covered):
                open = {*covered.open} - snapshot.running
                due = [row for row in rows if row.xid >= covered.below or row.xid in open]
                if len(due) >= LOOK:
                    seen["more than a look brings"] += 1
                    reading.on_many()
                elif batch := reading.on_looked(snapshot, newest(due, covered.below), last(due)):
                    return self.deliver(batch, due)
            case Measure(covered):
                reading.on_measured(snapshot, newest(rows, covered.below), last(rows))
            case Ask(known, start):
                asked = {*known, *range(snapshot.xmin if start is None else start, snapshot.xmax)}
                running = {xid for xid in asked if xid < snapshot.xmax and self.server.is_running(xid)}
                reading.on_asked(running, snapshot.xmax)
                seen["a standby that has not got as far as the batch"] += reading.behind and self.server.recovery
                seen["a prepared transaction whose commit is lost"] += reading.behind and not self.server.recovery
            case Find(_, running, xmax):
                found = {row.xid for row in rows if row.xid in running or row.xid >= xmax}
                reading.on_found(newest(rows, 0), found, last(rows))
            case Page():
                return self.read_page(step, rows)
        return False

    def read_page(self, page: Page, rows: Sequence[Row]) -> bool:
        if page.after is None and (self.floor is None or self.floor[0] != page):
            ranges = list(spans(page.covered, page.target))
            ids = [row.id for row in rows if any(low <= row.xid < high for low, high in ranges)]
            self.floor = (page, min(ids, default=None))
            self.note_trimmed()
            return True
        if self.lost():
            return True
        self.note_trimmed()
        if page.after is not None:
            after = page.after
        elif self.floor is None or self.floor[1] is None:
            self.reading.on_page(None, True)
            return True
        else:
            after = self.floor[1] - 1
        raw = [row for row in rows if after < row.id <= page.until][: self.page_size]
        wanted = [row for row in raw if page.target.covers(row.xid) and not page.covered.covers(row.xid)]
        seen["a page with what is not wanted"] += len(wanted) < len(raw)
        return self.deliver(self.reading.on_page(last(raw), len(raw) < self.page_size), wanted)

    def pass_over(self) -> None:
        """It was to begin at the end, and this is the end."""
        self.to_end = False
        self.reading.on_passed_over()
        covered = self.reading.position.covered
        passed = [row for row in self.schedule.primary.history[self.stream] if covered.covers(row.xid)]
        seen["begun at the end"] += bool(passed)
        self.log += passed
        self.once.update(passed)
        self.ever.update(passed)

    def lost(self) -> bool:
        """Whether an answer does not come."""
        if self.schedule.calm or not self.schedule.chance(0.1):
            return False
        seen["an answer is lost"] += 1
        if self.schedule.chance(0.7):
            seen["a session is lost in the midst"] += self.reading.in_midst
            self.disconnect()
        return True

    def deliver(self, batch: Batch, rows: Sequence[Row]) -> bool:
        if rows:
            self.reading.on_delivered(map(as_newest, rows))
            self.last_batch = list(rows)
        for row in rows:
            self.take(row)
            if self.schedule.chance(0.1):
                self.save(batch.position(row.id, row.xid, row.appended_at), row)
            if not self.schedule.calm and self.schedule.chance(0.1):
                seen["stopped in the midst of a batch"] += row is not rows[-1]
                self.resume(self.save(batch.position(row.id, row.xid, row.appended_at), row))
                break
        return True

    def take(self, row: Row) -> None:
        assert not self.to_end, "what was there before"
        assert row not in self.once, "delivered twice"
        self.once.add(row)
        self.ever.add(row)
        self.log.append(row)
        history = self.schedule.primary.history[self.stream]
        assert row in history, "delivered, but not committed"
        while self.prefix < len(history) and history[self.prefix] in self.ever | self.excused:
            self.prefix += 1
        assert self.prefix >= row.before, "something comes later that its appender could have seen"
        if any(xid < row.xid for xid in self.schedule.primary.running):
            seen["past an open transaction"] += 1

    def go_back(self) -> None:
        """The process dies, and another one goes on where it is known to have been."""
        seen["resumed at an older position"] += bool(self.log)
        self.resume(self.random.choice(self.saved))


def newest(rows: Iterable[Row], low: int) -> Newest | None:
    """Of those whose transaction ids are not below `low`."""
    row = max([row for row in rows if row.xid >= low], key=lambda row: row.order, default=None)
    return None if row is None else as_newest(row)


def as_newest(row: Row) -> Newest:
    return Newest(row.xid, Anchor(row.id, row.microseconds))


def last(rows: Sequence[Row]) -> int | None:
    """The last id."""
    return rows[-1].id if rows else None


class Schedule:
    """One random life of a cluster."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.kind = self.random.choice(("primary", "failover", "standby", "mixed"))
        self.standby = self.kind in ("standby", "mixed")
        self.calm = False
        self.birth = UUID(int=1)
        self.now = 1_700_000_000_000_000
        self.first_xid = self.random.randrange(3, 1000)
        self.log: list[Record] = []
        self.flushed = 0
        self.shown = 0
        """So much of the log has been seen by somebody who would miss it."""
        self.primary = Server(self.first_xid)
        count = {"primary": 0, "failover": 1}.get(self.kind, 2)
        self.replicas = [Server(self.first_xid, recovery=True) for _ in range(count)]
        self.decided: dict[int, str] = {}  # what becomes of those that are prepared, also if it is forgotten
        self.writers = [Writer(self) for _ in range(self.random.randrange(1, 5))]
        self.writers.append(Writer(self, stays_open=True))
        self.readers = [Reader(self, stream) for stream in (*STREAMS, STREAMS[0])]

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def time(self) -> int:
        self.now += self.random.randrange(1, 1000)
        return self.now

    @property
    def readable(self) -> Sequence[Server]:
        """From which it is read."""
        return {"standby": self.replicas, "mixed": [self.primary, *self.replicas]}.get(self.kind) or [self.primary]

    def note_shown(self, server: Server) -> None:
        self.shown = max(self.shown, self.flushed if server is self.primary else server.applied)

    def write(
        self, kind: str, xid: int, row: Row | None = None, removed: tuple[Row, ...] = (), *, flush: bool = False
    ) -> None:
        record = Record(kind, xid, row, removed)
        self.log.append(record)
        self.primary.apply(record)
        if flush:
            self.flushed = len(self.log)

    def run(self) -> None:
        happenings: list[tuple[Callable[[], object], float]] = [
            (self.let_write, 10),
            (self.let_read, self.random.choice((5, 10, 20))),
            (self.let_go_back, 0.5),
            (self.resolve, 1),
            (self.flush, 1),
            (self.replicate, self.random.choice((1, 3))),
            (self.crash, self.random.choice((0, 0.3))),
            (self.replace, self.random.choice((0, 0.4))),
            (self.fall_back, 0.5),
            (self.trim, self.random.choice((0, 0.5, 2))),
            (self.restore, self.random.choice((0, 0.2)) if self.kind == "primary" else 0),
        ]
        choices, weights = zip(*happenings, strict=True)
        for _ in range(self.random.randrange(20, 300)):
            self.random.choices(choices, weights)[0]()
        self.calm = True
        self.end_of(self.writers[:-1])
        self.check_rest("although a transaction is open")
        self.end_of(self.writers)
        self.check_rest("at the end")

    def end_of(self, writers: Sequence[Writer]) -> None:
        for writer in writers:
            if writer.xid is not None:
                writer.end(self.random.choice(("commit", "abort")))
        while self.primary.prepared:
            self.resolve()

    def check_rest(self, when: str) -> None:
        self.flush()
        for replica in self.replicas:
            self.catch_up(replica, self.flushed)
        for reader in self.readers:
            history = self.primary.history[reader.stream]
            assert {*history} - self.primary.removed[reader.stream] == {*self.primary.visible(reader.stream)}
            for _ in range(3 * len(history) + 20):
                if not reader.step():
                    break
            else:
                raise AssertionError("it does not come to rest")
            missing = [row for row in history if row not in reader.ever | reader.excused]
            assert not missing, f"{missing} are missing {when}"

    # -- what happens

    def let_write(self) -> None:
        self.random.choice(self.writers).step()

    def let_read(self) -> None:
        self.random.choice(self.readers).step()

    def let_go_back(self) -> None:
        self.random.choice(self.readers).go_back()

    def resolve(self) -> None:
        """Commit a prepared transaction, or roll it back."""
        if self.primary.prepared:
            xid = self.random.choice(sorted(self.primary.prepared))
            kind = self.decided.setdefault(xid, self.random.choice(("commit", "abort")))
            self.write(kind, xid, flush=True)

    def trim(self) -> None:
        """Retention removes some entries, the oldest first but for those of transactions that ended late."""
        server, stream = self.primary, self.random.choice(STREAMS)
        xmin = Snapshot.parse(server.snapshot()).xmin
        rows = sorted([row for row in server.visible(stream) if row.xid < xmin], key=lambda row: row.id)
        start = self.random.choice((0, 0, self.random.randrange(3)))
        removed = tuple(rows[start : start + self.random.choice((1, 3, 100))])
        if removed:
            self.write("trim", server.assign(), None, removed, flush=self.chance(0.5))

    def flush(self) -> None:
        self.flushed = len(self.log)

    def replicate(self) -> None:
        for replica in self.replicas:
            if replica.applied < self.flushed:
                self.catch_up(replica, self.random.randint(replica.applied, self.flushed))

    def catch_up(self, replica: Server, until: int) -> None:
        for record in self.log[replica.applied : until]:
            replica.apply(record)

    def crash(self) -> None:
        """The primary forgets what it had not flushed."""
        seen["the primary crashed"] += 1
        del self.log[self.flushed :]
        before = self.primary
        self.start(Server(self.first_xid, self.log, timeline=before.timeline), before)
        for reader in self.readers:
            if reader.server is before:
                reader.disconnect()

    def restore(self) -> None:
        """A dump is restored, and made to work, elsewhere: what was committed is there, and nothing was begun."""
        for writer in self.writers:
            if writer.xid is not None:
                writer.end("abort")
        while self.primary.prepared:
            self.resolve()
        self.birth = UUID(int=self.birth.int + 1)
        for reader in self.readers:
            reader.disconnect()

    def start(self, server: Server, before: Server) -> None:
        """`server` is the primary now, in place of `before`."""
        seen["transaction ids are handed out again"] += server.next_xid < before.next_xid
        seen["ids are handed out again"] += server.next_id < before.next_id
        self.decided = {xid: kind for xid, kind in self.decided.items() if xid < server.next_xid}
        self.primary = server
        self.write("restart", server.next_xid - 1, flush=True)
        for writer in self.writers:
            writer.forget()

    def replace(self) -> None:
        """A standby becomes the primary."""
        if not self.replicas or (self.standby and len(self.replicas) < 2):
            return
        chosen = max(self.replicas, key=lambda replica: replica.applied)
        if self.standby:
            self.catch_up(chosen, max(chosen.applied, self.shown))
        seen["a standby was promoted under its readers" if self.standby else "a failover"] += 1
        seen["promoted with a prepared transaction"] += bool(chosen.prepared)
        del self.log[chosen.applied :]
        before = self.primary
        chosen.recovery = False
        chosen.timeline += 1
        self.start(chosen, before)
        self.replicas.remove(chosen)
        if self.kind == "failover":
            self.replicas.append(Server(self.first_xid, self.log, timeline=chosen.timeline, recovery=True))
        for reader in self.readers:
            if reader.server not in (chosen, *self.replicas):
                reader.disconnect()

    def fall_back(self) -> None:
        """A standby crashed, and shows again what it has shown before."""
        if self.replicas:
            seen["a standby fell back"] += 1
            before = self.replicas.pop(self.random.randrange(len(self.replicas)))
            log = self.log[: self.random.randint(0, before.applied)]
            self.replicas.append(Server(self.first_xid, log, timeline=before.timeline, recovery=True))
            for reader in self.readers:
                if reader.server is before:
                    reader.disconnect()


HAPPENINGS = [
    "an id was taken long before the append",
    "commit without entries",
    "abort without entries",
    "prepared",
    "past an open transaction",
    "more than a look brings",
    "a page with what is not wanted",
    "an answer is lost",
    "a session is lost in the midst",
    "stopped in the midst of a batch",
    "resumed at an older position",
    "the primary crashed",
    "transaction ids are handed out again",
    "ids are handed out again",
    "a failover",
    "rewound to what both histories share",
    "rewound to the beginning",
    "not rewound by a failover",
    "a standby that lags behind a position",
    "a standby that has not got as far as the batch",
    "begun at the end",
    "a standby was promoted under its readers",
    "promoted with a prepared transaction",
    "a standby fell back",
    "restored from a dump",
    "a witness vanished, and its anchor did not",
    "more was removed than is listed",
    "an anchor was removed",
    "it is not known whether a failover or retention took an anchor",
    "nothing was missed of what was removed",
    "a gap of retention",
    "a gap of retention in the midst of a batch",
    "a false alarm",
]

SIMULATION = Simulation(
    "stream",
    lambda seed: Schedule(seed).run(),
    seen,
    HAPPENINGS,
    enough=1000,
    small={"pgpubsub.core.trimmed.LISTED": LISTED},
)


def test_the_promises_hold_under_every_schedule() -> None:
    SIMULATION.check(SCHEDULES)
