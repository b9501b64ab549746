"""One step of a reader after the other: what it asks of the server, and what the answer means.

`core.reading` decides on the steps. Each is taken on a session that has shown that it has the history which the
reader's position is about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Protocol
from weakref import WeakSet

from pgpubsub.core.position import FIRST, Covered, Snapshot, spans
from pgpubsub.core.reading import WITNESSES, Ask, Batch, Find, Look, Measure, Newest, Page, Reading, Step, seen
from pgpubsub.core.trimmed import Trimmed
from pgpubsub.errors import ConnectionLost
from pgpubsub.events import Gap, GapReason
from pgpubsub.hubs.mailbox import now
from pgpubsub.status import Observation
from pgpubsub.streams.installation import restored
from pgpubsub.streams.session import Home, Session
from pgpubsub.streams.statements import Statements, as_array

__all__ = ["Lagging", "Sink", "Steps"]

ROWS = 2000
"""Entries in a page, at most."""

BYTES = 4 << 20
"""Bytes of payload in a page, at most, unless one entry has more."""

DETAILS = {
    GapReason.REWOUND: "the newest entries that were read are not there any more: the server has another history",
    GapReason.RESTORED: "the stream was restored from a dump since the position was taken",
    GapReason.TRIMMED: "retention has removed entries that had not been read",
}


class Sink(Protocol):
    """What is read goes there."""

    @property
    def has_enough(self) -> bool:
        """Whether it is not time yet to read on."""

    def on_read(self, rows: Sequence[Any], batch: Batch) -> None:
        """These rows of `Statements.look` or `page` come next. There may be none, and the position another."""

    def deliver_gap(self, gap: Gap) -> None:
        """Take note of a gap."""

    def end(self, why: Exception) -> None:
        """There will be no more."""


class Lagging(ConnectionLost):
    """The server has not got as far as the reader. It will."""


class Steps:
    """See the module.

    Args:
        name: the stream's.
        stream: its id.
        reading: decides on the steps.
        sink: gets the entries.
        statements: of the schema.
        observe: is told of gaps.
        in_group: whether it reads for a group, which goes on from what is stored whatever it missed.
    """

    def __init__(
        self,
        name: str,
        stream: int,
        reading: Reading,
        sink: Sink,
        statements: Statements,
        observe: Callable[[Observation], None],
        *,
        in_group: bool,
    ) -> None:
        self._healthy = now()  # when the last step was taken that succeeded
        self._name = name
        self._stream = stream
        self._reading = reading
        self._sink = sink
        self._statements = statements
        self._observe = observe
        self._in_group = in_group
        self._met: WeakSet[Any] = WeakSet()  # connections whose history is known to be ours
        self._home: Home | None = None
        self._server: object = None

    async def take(self, session: Session) -> None:
        """Do what the core wants next."""
        await self.meet(session)
        step = self._reading.next_step()
        await self._do(session, step)
        if isinstance(step, Ask) and not self._reading.behind:
            # The answer is one of this server, so it says what follows.
            await self._do(session, self._reading.next_step())
        self._healthy = now()

    async def _do(self, session: Session, step: Step) -> None:
        if isinstance(step, Look):
            await self._look(session, step)
        elif isinstance(step, Page):
            await self._page(session, step)
        elif isinstance(step, Measure):
            row = await self._first(session, self._statements.measure, below=step.covered.below)
            self._note_trimmed(row[5])
            snapshot, newest = Snapshot.parse(row[0]), _newest(*row[1:4])
            self._check_present(newest, snapshot)
            self._reading.on_measured(snapshot, newest, row[4])
        elif isinstance(step, Ask):
            start = None if step.start is None else str(step.start)
            row = await session.first(self._statements.running, {"known": as_array(step.known), "start": start})
            self._reading.on_asked(row[1], row[0])
        elif isinstance(step, Find):
            row = await self._first(
                session, self._statements.find, running=as_array(sorted(step.running)), xmax=step.xmax
            )
            self._note_trimmed(row[6])
            newest = _newest(*row[:3])
            self._check_present(newest, Snapshot.parse(row[5]))
            self._reading.on_found(newest, row[4], row[3])

    async def _look(self, session: Session, step: Look) -> None:
        below = step.covered.below
        first, *found = await self._rows(
            session, self._statements.look, below=below, open=as_array(step.covered.open), rows=ROWS, bytes=BYTES
        )
        found = self._without_trimmed(found)
        if len(found) >= ROWS or any(row[2] is None and row[3] is None for row in found):
            self._reading.on_many()
            return
        found.sort(key=itemgetter(0))
        fresh = [(row[6], row[0], row[5]) for row in found if row[6] >= below]
        newest = _newest(first[0], first[5], first[6])
        if newest is None and fresh:
            xid, id, appended_at = max(fresh)
            newest = _newest(id, appended_at, xid)
        snapshot = Snapshot.parse(first[1])
        self._check_present(newest, snapshot)
        batch = self._reading.on_looked(snapshot, newest, found[-1][0] if found else None)
        self._deliver(found, batch or Batch(self._reading.position, self._reading.position, None))

    async def _page(self, session: Session, step: Page) -> None:
        after = step.after
        if after is None:
            after = await self._before_first(session, step.covered, step.target)
        if after is None:
            self._reading.on_page(None, done=True)
            return
        found = await self._rows(
            session,
            self._statements.page,
            below=step.covered.below,
            open=as_array(step.covered.open),
            target=step.target.below,
            target_open=as_array(step.target.open),
            after=after,
            until=step.until,
            rows=ROWS,
            bytes=BYTES,
        )
        found = self._without_trimmed(found)
        last: int | None = found[-1][0] if found else None
        wanted = [row for row in found if row[6] is not None]
        if last is not None and not wanted:  # there may be millions more that were read before
            last = await self._before_first(session, step.covered, step.target, last)
        self._deliver(wanted, self._reading.on_page(last, done=last is None))

    async def _before_first(self, session: Session, covered: Covered, target: Covered, after: int = 0) -> int | None:
        """What is just below the first id above `after` of `target` that is not in `covered`. None: there is none."""
        if covered.below <= FIRST:
            return after
        ranges = list(spans(covered, target))
        lows, highs = as_array([low for low, _ in ranges]), as_array([high for _, high in ranges])
        row = await self._first(session, self._statements.first, lows=lows, highs=highs, after=after)
        first: int | None = row[0]
        self._note_trimmed(row[1])
        return None if first is None else first - 1

    def _deliver(self, found: Sequence[Any], batch: Batch) -> None:
        if found:
            self._reading.on_delivered([seen(row[6], row[0], row[5]) for row in found[-WITNESSES:]])
        self._sink.on_read(found, batch)

    async def _rows(self, session: Session, statement: str, **parameters: object) -> list[Any]:
        trimmed = self._reading.trimmed
        parameters["removed"] = 0 if trimmed is None else trimmed.removed
        named = {name: str(value) for name, value in parameters.items()}
        return await session.rows(statement, {"stream": str(self._stream), **self._statements.parameters, **named})

    async def _first(self, session: Session, statement: str, **parameters: object) -> Any:
        return (await self._rows(session, statement, **parameters))[0]

    # -- whose history it is

    def _check_present(self, newest: Newest | None, snapshot: Snapshot) -> None:
        """Raise if an entry is from the future: its transaction id was not assigned by this server."""
        if newest is not None and newest.xid >= snapshot.xmax:
            raise restored(self._statements.schema)

    async def meet(self, session: Session) -> None:
        """Make sure that `session` has the history that the position is about, or report that it has another."""
        home = await session.home(self._statements)
        if session in self._met and home == self._home and not session.pooled:
            return
        self._home = home
        reading = self._reading
        reading.standby = home.in_recovery
        if (reason := reading.on_session(home.birth, home.timeline)) is not None:
            self._report(reason)
        if anchors := reading.anchors:
            expected = [*anchors, *reading.witnesses]
            found, snapshot, text = await self._first(
                session,
                self._statements.anchors,
                ids=as_array([one.anchor.id for one in expected]),
                xids=as_array([one.xid for one in expected]),
                times=as_array([one.anchor.microseconds for one in expected]),
            )
            trimmed = None if text is None else Trimmed.parse(text)
            present = {number - 1 for number in found}.union(reading.passed(expected, trimmed))
            witnesses = range(len(anchors), len(expected))
            lost = [expected[number] for number in (0, *witnesses) if number not in present]
            if home.in_recovery and any(one.xid >= Snapshot.parse(snapshot).xmin for one in lost):
                raise Lagging("the standby has not replayed what was read elsewhere")
            if (reason := reading.on_anchors(present, witnesses=present.issuperset(witnesses))) is not None:
                self._report(reason)
            self._note_trimmed(text)
        if home.in_recovery and session.server != self._server:
            self._met.clear()  # the other may lag behind this one
        self._server = session.server
        self._met.add(session)

    def _without_trimmed(self, rows: list[Any]) -> list[Any]:
        """The entries of a look or a page, behind what was removed."""
        if rows and rows[0][0] is None:
            self._note_trimmed(rows[0][2])
            return rows[1:]
        return rows

    def _note_trimmed(self, text: str | None) -> None:
        """What retention has removed, if that is not what was known."""
        if text is None:
            return
        trimmed = Trimmed.parse(text)
        reason = self._reading.on_trimmed(trimmed)
        if reason is None or (self._in_group and trimmed.kept):
            return
        self._report(reason)

    def _report(self, reason: GapReason) -> None:
        self._sink.deliver_gap(Gap(reason, (self._name,), self._healthy, None, DETAILS[reason]))
        self._observe(Observation("gap", (self._name,), detail=DETAILS[reason], reason=reason))


def _newest(id: int | None, appended_at: datetime | None, xid: int | None) -> Newest | None:
    if id is None or appended_at is None or xid is None:
        return None
    return seen(xid, id, appended_at)
