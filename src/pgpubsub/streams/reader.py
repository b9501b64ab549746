"""Reads a stream, as `core.reading` decides, and keeps a little ahead of whoever takes its entries.

When nothing is due it waits for a hint, or for the watch to find something. A connection that breaks is no loss here:
it goes on over the next, once that has shown that it has the same history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from operator import itemgetter
from typing import Any, Protocol
from weakref import WeakSet

from pgpubsub.core.position import FIRST, Covered, Position, Snapshot, spans
from pgpubsub.core.reading import WITNESSES, Ask, Batch, Find, Look, Measure, Newest, Page, Reading, seen
from pgpubsub.core.trimmed import Trimmed
from pgpubsub.errors import ConnectionLost, PubSubError, SubscriptionClosed
from pgpubsub.events import Gap, GapReason
from pgpubsub.hubs.mailbox import now
from pgpubsub.logs import EventLog
from pgpubsub.randomness import new_delays
from pgpubsub.status import Observation
from pgpubsub.streams.installation import restored
from pgpubsub.streams.session import Home, Session
from pgpubsub.streams.source import Source
from pgpubsub.streams.statements import Statements, as_array
from pgpubsub.streams.watch import Watch

__all__ = ["Reader"]

logger = EventLog("streams")

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


class Reader:
    """See the module.

    Args:
        name: the stream's.
        stream: its id.
        start: where to begin; None at the oldest entry.
        sink: gets the entries.
        source: of connections.
        watch: tells when there may be something without a hint.
        observe: is told of gaps.
        in_group: whether it reads for one, which goes on from what is stored whatever it missed.
    """

    def __init__(
        self,
        name: str,
        stream: int,
        start: Position | None,
        sink: Sink,
        source: Source,
        statements: Statements,
        watch: Watch,
        observe: Callable[[Observation], None],
        *,
        in_group: bool = False,
    ) -> None:
        self.reading = Reading(stream, start)
        self.stream = stream
        self.error: PubSubError | None = None
        """Why it could not read when it tried last."""
        self._name = name
        self._sink = sink
        self._source = source
        self._statements = statements
        self._watch = watch
        self._observe = observe
        self._in_group = in_group
        self._woken = asyncio.Event()
        self._hungry = asyncio.Event()
        self._hungry.set()
        self._reachable = asyncio.Event()
        self._delays = new_delays()
        self._met: WeakSet[Any] = WeakSet()  # connections whose history is known to be ours
        self._home: Home | None = None
        self._server: object = None
        self._asked = False  # with the last step
        self._stopped = False
        self._healthy = now()

    @property
    def position(self) -> Position:
        """Where it stands."""
        return self.reading.position

    def wake(self) -> None:
        """There may be something new."""
        self._woken.set()

    def feed(self) -> None:
        """There is room for more."""
        self._hungry.set()

    def retry(self) -> None:
        """The server can be reached again."""
        self._reachable.set()
        self.wake()

    def stop(self) -> None:
        """Nobody wants more. A statement under way is left to come to its end."""
        self._stopped = True
        self.retry()
        self.feed()

    async def begin(self, *, at_end: bool) -> None:
        """Make sure that there is a stream to read and that the position is one of its, or go to its end."""
        if at_end:
            self.reading.on_many()
        while not self._stopped:
            if at_end:
                await self._advance()
                if self.reading.position.target is not None:
                    self.reading.on_passed_over()
                if not self.reading.in_midst and self.error is None:
                    return
            elif await self._meet_any():
                return

    async def run(self, follow: bool) -> None:
        """Read until it is stopped, or else to the end."""
        try:
            while follow and not self._stopped:
                await self._hungry.wait()
                if not await self._advance() and not self._stopped:
                    await self._watch.wait(self)
            await self._finish()
            self.reading.on_many()  # how far that is, is decided now
            await self._finish()
            self._sink.end(SubscriptionClosed("the reader has come to the end"))
        except PubSubError as error:
            self._sink.end(error)
        except Exception as error:
            logger.exception("reader_failed", "reading stream %(stream)r failed", stream=self._name)
            failure = PubSubError(f"reading stream {self._name!r} failed, by a fault of our own: {error!r}")
            failure.__cause__ = error
            self._sink.end(failure)

    async def _finish(self) -> None:
        while self.reading.in_midst and not self._stopped:
            await self._hungry.wait()
            if not await self._advance() and self.reading.behind:
                await self._watch.wait(self)

    async def until_woken(self) -> None:
        """Wait for `wake`."""
        await self._woken.wait()

    # -- one step

    async def _advance(self) -> bool:
        """Take a step; whether another one is to be taken at once. If not, all was read that there was when it began,
        and since then we would have been woken."""
        reading = self.reading
        if not reading.in_midst or reading.behind:
            self._woken.clear()  # what wakes us from now on may be news
        try:
            async with self._source.session(self._statements, spare=self.error is not None) as session:
                await self._meet(session)
                await self._take(session)
                if self._asked and not reading.behind:  # the answer is one of this server, so it says what follows
                    await self._take(session)
        except ConnectionLost as error:
            await self._pause(error)
            return True
        if self.error is not None:
            self.error = None
            self._delays = new_delays()
        self._healthy = now()
        return reading.in_midst and not reading.behind

    async def _meet_any(self) -> bool:
        try:
            async with self._source.session(self._statements, spare=self.error is not None) as session:
                await self._meet(session)
        except _Lagging:  # it will come
            return True
        except ConnectionLost as error:
            await self._pause(error)
            return False
        return True

    async def _pause(self, error: ConnectionLost) -> None:
        self.error = error
        if self._stopped:
            return
        logger.warning("reading_interrupted", "stream %(stream)r: %(error)s", stream=self._name, error=error)
        delay = max(0.02, next(self._delays))
        if isinstance(error, _Lagging):
            delay = min(delay, self._watch.interval)
        self._reachable.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._reachable.wait()

    async def _take(self, session: Session) -> None:
        """Do what the core wants next."""
        step = self.reading.next_step()
        self._asked = isinstance(step, Ask)
        if isinstance(step, Look):
            await self._look(session, step)
        elif isinstance(step, Page):
            await self._page(session, step)
        elif isinstance(step, Measure):
            row = await self._first(session, self._statements.measure, below=step.covered.below)
            self._note_trimmed(row[5])
            snapshot, newest = Snapshot.parse(row[0]), _newest(*row[1:4])
            self._check_present(newest, snapshot)
            self.reading.on_measured(snapshot, newest, row[4])
        elif isinstance(step, Ask):
            start = None if step.start is None else str(step.start)
            row = await session.first(self._statements.running, {"known": as_array(step.known), "start": start})
            self.reading.on_asked(row[1], row[0])
        elif isinstance(step, Find):
            row = await self._first(
                session, self._statements.find, running=as_array(sorted(step.running)), xmax=step.xmax
            )
            self._note_trimmed(row[6])
            newest = _newest(*row[:3])
            self._check_present(newest, Snapshot.parse(row[5]))
            self.reading.on_found(newest, row[4], row[3])

    async def _look(self, session: Session, step: Look) -> None:
        below = step.covered.below
        first, *found = await self._rows(
            session, self._statements.look, below=below, open=as_array(step.covered.open), rows=ROWS, bytes=BYTES
        )
        found = self._without_trimmed(found)
        if len(found) >= ROWS or any(row[2] is None and row[3] is None for row in found):
            self.reading.on_many()
            return
        found.sort(key=itemgetter(0))
        fresh = [(row[6], row[0], row[5]) for row in found if row[6] >= below]
        newest = _newest(first[0], first[5], first[6])
        if newest is None and fresh:
            xid, id, appended_at = max(fresh)
            newest = _newest(id, appended_at, xid)
        snapshot = Snapshot.parse(first[1])
        self._check_present(newest, snapshot)
        batch = self.reading.on_looked(snapshot, newest, found[-1][0] if found else None)
        self._deliver(found, batch or Batch(self.position, self.position, None))

    async def _page(self, session: Session, step: Page) -> None:
        after = step.after
        if after is None:
            after = await self._before_first(session, step.covered, step.target)
        if after is None:
            self.reading.on_page(None, done=True)
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
        self._deliver(wanted, self.reading.on_page(last, done=last is None))

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
            self.reading.on_delivered([seen(row[6], row[0], row[5]) for row in found[-WITNESSES:]])
        self._sink.on_read(found, batch)
        if self._sink.has_enough:
            self._hungry.clear()

    async def _rows(self, session: Session, statement: str, **parameters: object) -> list[Any]:
        trimmed = self.reading.trimmed
        parameters["removed"] = 0 if trimmed is None else trimmed.removed
        named = {name: str(value) for name, value in parameters.items()}
        return await session.rows(statement, {"stream": str(self.stream), **self._statements.parameters, **named})

    async def _first(self, session: Session, statement: str, **parameters: object) -> Any:
        return (await self._rows(session, statement, **parameters))[0]

    # -- whose history it is

    def _check_present(self, newest: Newest | None, snapshot: Snapshot) -> None:
        """Raise if an entry is from the future: its transaction id was not assigned by this server."""
        if newest is not None and newest.xid >= snapshot.xmax:
            raise restored(self._statements.schema)

    async def _meet(self, session: Session) -> None:
        """Make sure that `session` has the history that the position is about, or report that it has another."""
        home = await session.home(self._statements)
        if session in self._met and home == self._home and not session.pooled:
            return
        self._home = home
        reading = self.reading
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
                raise _Lagging("the standby has not replayed what was read elsewhere")
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
        reason = self.reading.on_trimmed(trimmed)
        if reason is None or (self._in_group and trimmed.kept):
            return
        self._report(reason)

    def _report(self, reason: GapReason) -> None:
        self._sink.deliver_gap(Gap(reason, (self._name,), self._healthy, None, DETAILS[reason]))
        self._observe(Observation("gap", (self._name,), detail=DETAILS[reason], reason=reason))


class _Lagging(ConnectionLost):
    """The server has not got as far as the reader. It will."""


def _newest(id: int | None, appended_at: datetime | None, xid: int | None) -> Newest | None:
    if id is None or appended_at is None or xid is None:
        return None
    return seen(xid, id, appended_at)
