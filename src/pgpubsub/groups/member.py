"""A member of a group: takes slots, reads their entries, hands them out and writes down what became of them.

What to hand out and to write down is decided by `core.groups`. All is written over one connection, in one place of one
task, so that nothing overtakes anything. If that connection is lost, or the lease was, everything is forgotten and read
again: the database knows.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple

from pgpubsub.core.entries import hint_channel
from pgpubsub.core.groups import Item, Lane, Place, Share, Write, quota
from pgpubsub.core.position import BEGINNING, Covered, Position, Start, stream_id
from pgpubsub.core.reading import Batch
from pgpubsub.errors import ConnectionLost, LeaseLost, PubSubError, SubscriptionClosed
from pgpubsub.events import Gap, GapReason
from pgpubsub.groups.claims import Apart, Claim, Settling
from pgpubsub.groups.hints import group_channel, group_id, tell
from pgpubsub.groups.inbox import ClaimInbox
from pgpubsub.groups.lanes import Lanes, place_at
from pgpubsub.groups.statements import (
    GroupStatements,
    parameters_of_parked,
    parameters_of_place,
    parameters_of_slots,
    place_of,
)
from pgpubsub.hubs.engine import Engine
from pgpubsub.hubs.mailbox import now
from pgpubsub.randomness import new_delays
from pgpubsub.status import Happening, Observation
from pgpubsub.streams.description import Description
from pgpubsub.streams.rows import event
from pgpubsub.streams.service import Streams
from pgpubsub.streams.source import Session
from pgpubsub.streams.statements import as_array

__all__ = ["Member", "Settings"]

logger = logging.getLogger("pgpubsub.groups")

AHEAD = 2000
"""Entries that are left when the next page is read."""

TICK = 2.0
"""Seconds after which a member looks who the others are, at most."""

DUE = 100
"""Parked entries that are fetched at a time."""

ANSWER = 30.0
"""Seconds that the server may take for a statement."""

ENDED = "the membership has ended: its lease was over, the server crashed, or the group was set elsewhere"

NAME = f"{socket.gethostname()} {{}}"


class Settings(NamedTuple):
    """What `consume` was asked for."""

    group: str
    batch: int
    follow: bool
    attempts: int
    backoff: Callable[[int], float]
    lease: float
    start: Position | Start
    on_gap: Callable[[Gap], object]


class _Ended(Exception):
    """The membership has ended."""


class Member:
    """See the module.

    Args:
        engine: the hub's.
        streams: its streams.
        description: of the one.
        settings: of the consumer.
        inbox: where it takes from.
    """

    def __init__(
        self,
        engine: Engine,
        streams: Streams,
        description: Description[Any],
        settings: Settings,
        inbox: ClaimInbox,
    ) -> None:
        self._engine = engine
        self._streams = streams
        self._description = description.at_home()
        self._settings = settings
        self._inbox = inbox
        self._lanes = Lanes(streams, self._description, settings.follow, self)
        self._statements = GroupStatements(description.schema)
        self._stream = stream_id(description.name)
        self._group = group_id(self._stream, settings.group)
        self.loop = asyncio.get_running_loop()
        """In which all of it happens."""
        self._woken = asyncio.Event()
        self._finished = asyncio.Event()  # and nothing is in hand any more
        self._stopped = False
        self._finishing = False
        self.error: PubSubError | None = None
        """Why it could not take part when it tried last."""
        self.joined: asyncio.Future[None] = self.loop.create_future()
        """Done when it takes part for the first time."""
        self._delays = new_delays()
        self._former: str | None = None  # whose membership we know to have ended
        self._forget()

    @property
    def channels(self) -> Sequence[str]:
        """On which it is told that there is something to do."""
        return hint_channel(self._stream), group_channel(self._group)

    def _forget(self) -> None:
        self._id = ""
        self._share = Share(self._settings.attempts, self._settings.backoff, self._settings.batch)
        self._places: dict[int, str] = {}  # of the slots' rows
        self._lanes_due = False
        self._starting: list[Claim[Any]] = []  # when it is written down
        self._claims: dict[Claim[Any], None] = {}  # that are in hand, or ready to be
        self._telling: list[Settling] = []
        self._doubtful: dict[Claim[Any], _Doubt] = {}
        self._rewritten = False
        self._expected = 0  # more slots, when it looked last
        self._to_come = False  # whether parked entries will be due within a day
        self._tick_at = self._due_at = 0.0

    # -- what others tell it

    def wake(self) -> None:
        """There may be something to do."""
        self._woken.set()

    def on_hint(self, channels: Sequence[str]) -> None:
        """Something has come on these channels."""
        if group_channel(self._group) in channels:
            self._tick_at = self._due_at = 0.0
            self.wake()
        if hint_channel(self._stream) in channels:
            self._lanes.wake()

    def retry(self) -> None:
        """The server can be reached again."""
        self._lanes.retry()
        self.wake()

    def finish(self) -> None:
        """Hand out nothing more; what is in hand will be settled."""
        self._finishing = True
        self._give_back()
        self._inbox.finish()
        self.wake()

    async def finished(self) -> None:
        """Wait until nothing is in hand, when nothing more is handed out."""
        self.finish()
        self._check_finished()
        await self._finished.wait()

    def _check_finished(self) -> None:
        if self._finishing and not self._claims:
            self._finished.set()

    def stop(self) -> None:
        """Leave."""
        self._stopped = True
        self._give_back()
        self.wake()

    def acknowledge(self, claim: Claim[Any], settling: Settling) -> None:
        """`claim` was handled. `settling` is told when it is written down."""
        if self._settle(claim, settling):
            self._share.acknowledge(claim.items)
            self._observe("handled", claim)

    def fail(self, claim: Claim[Any], error: str, settling: Settling) -> None:
        """`claim` was not."""
        if self._settle(claim, settling):
            self._share.fail(claim.items, error)
            self._observe("handling_failed", claim, error)

    def abandon(self, claim: Claim[Any]) -> None:
        """Whoever had `claim` has dropped it without a word."""
        if not claim.settled and claim.lost is None:
            self.fail(claim, "it was dropped, and neither acknowledged nor failed", _Nobody())

    def doubt(self, claim: Claim[Any], xid: int, noted: int) -> None:
        """It was acknowledged in a transaction that may not have ended: `fail`, unless that is committed."""
        if claim in self._claims:
            self._doubtful[claim] = _Doubt(xid, noted)
            self.wake()

    def _settle(self, claim: Claim[Any], settling: Settling) -> bool:
        try:
            claim.check()
        except PubSubError as error:
            settling.tell(error)
            return False
        claim.settled = True
        del self._claims[claim]
        self._telling.append(settling)
        self.wake()
        return True

    def _observe(self, name: Happening, claim: Claim[Any], error: str = "") -> None:
        if self._engine.observed:
            seconds = monotonic() - claim.since
            self._engine.observe(Observation(name, (self._description.name,), seconds, error))

    # -- its life

    async def run(self) -> None:
        """Take part until it is stopped, or else to the end."""
        try:
            while not self._stopped:
                try:
                    async with self._streams.desk(self._description.schema) as session:
                        await self._take_part(session)
                except _Ended:
                    self._lose(LeaseLost(ENDED))
                except ConnectionLost as error:
                    self.error = error
                    self._lose(LeaseLost(f"the connection of the group was lost: {error}"))
                    if not self._stopped:
                        logger.warning("group %r: %s", self._settings.group, error)
                        await self._wait(max(0.02, next(self._delays)))
            self._inbox.end(SubscriptionClosed("the consumer was closed"))
        except PubSubError as error:
            self._inbox.end(error)
        except Exception as error:
            logger.exception("consuming as group %r failed", self._settings.group)
            failure = PubSubError(f"consuming as {self._settings.group!r} failed, by a fault of our own: {error!r}")
            failure.__cause__ = error
            self._inbox.end(failure)
        finally:
            self._lose(LeaseLost("the consumer was closed"))

    async def _take_part(self, session: Session) -> None:
        home = await session.home(self._streams.statements(self._description.schema))
        here = Position(home.birth, self._stream, home.timeline)
        await self._join(session)
        while not self._stopped:
            self._woken.clear()
            if self._rewritten:
                raise _Ended
            if monotonic() >= self._tick_at:
                await self._tick(session)
            if self._lanes_due:
                self._lanes_due = False
                self._lanes.read(self._share.lanes(), here)
            if monotonic() >= self._due_at:
                await self._fetch_due(session)
            if self._doubtful:
                await self._ask_for_fates(session)
            self._fill()
            if await self._write_down(session):
                continue
            if self._at_end:
                self._inbox.end(SubscriptionClosed("the consumer has come to the end"))
                break
            times = [self._tick_at, self._due_at, *[doubt.ask_at for doubt in self._doubtful.values()]]
            await self._wait(min(times) - monotonic())
        await self._leave(session)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass

    def _lose(self, error: LeaseLost) -> None:
        self._lanes.end()
        if self._claims:
            self._engine.observe(Observation("lease_lost", (self._description.name,), detail=str(error)))
        for claim in self._claims:
            claim.lost = error
        self._inbox.withdraw()
        telling = self._telling
        self._forget()
        self._check_finished()
        for settling in telling:
            settling.tell(LeaseLost(str(error)))

    @property
    def _at_end(self) -> bool:
        return (
            not self._settings.follow
            and self._expected <= 0
            and self._lanes.done
            and self._share.idle
            and not (self._claims or self._doubtful or self._to_come)
        )

    # -- members and slots

    async def _join(self, session: Session) -> None:
        place = Place(Covered())
        if self._settings.start is not BEGINNING and not (await self._first(session, self._statements.exists))[0]:
            place, gaps = await place_at(self._streams, self._description, self._settings.start)
            for gap in gaps:
                self._settings.on_gap(gap)
        (self._id,) = await self._first(
            session,
            self._statements.join,
            stream=self._description.name,
            name=self._settings.group,
            member=NAME.format(os.getpid()),
            lease=self._settings.lease,
            pid=session.pid,
            former=self._former,
            **parameters_of_place(place),
        )
        self._former = self._id
        self._tell_others()
        self.error = None
        self._delays = new_delays()

    async def _tick(self, session: Session) -> None:
        self._tick_at = monotonic() + min(TICK, self._settings.lease / 3)
        row = await self._first(session, self._statements.tick, member=self._id, lease=self._settings.lease)
        if row is None:
            raise _Ended
        members, free, removed = row
        if removed:
            self._miss(removed)
        self._share.refresh()
        due = self._expected = quota(members, self._id) - len(self._share.slots)
        if due < 0:
            self._share.leave(-due)
            self._lanes_due = True
        elif due and free:
            self._expected -= await self._take_slots(session, due)
        if not self.joined.done():
            self.joined.set_result(None)

    async def _take_slots(self, session: Session, wanted: int) -> int:
        rows = await self._rows(session, self._statements.take, member=self._id, wanted=wanted)
        slots = as_array([row[0] for row in rows])
        blocked = await self._rows(session, self._statements.blocked, group=self._group, slots=slots)
        for number, *place in rows:
            self._share.on_taken(number, place_of(*place), [key for (key,) in blocked])
        if rows:
            self._lanes_due = True
            self._due_at = 0.0
        return len(rows)

    async def _leave(self, session: Session) -> None:
        while await self._write_down(session):
            pass
        await self._rows(session, self._statements.leave, member=self._id)
        self._tell_others()

    def _tell_others(self) -> None:
        tell(self._engine, group_channel(self._group))

    # -- reading

    def on_read(self, lane: Lane, rows: Sequence[Any], batch: Batch) -> None:
        """The next entries of a lane."""
        apart = Apart(self._stream)
        items = [Item(row[0], row[7], row[1], event(row, apart), row[6]) for row in rows]
        self._share.on_read(lane, items, batch)
        if lane.start.target is not None and batch.after.target is None:
            self._lanes_due = True  # it goes on with the others
        self.wake()

    def on_failed(self, why: Exception) -> None:
        """A lane cannot be read."""
        self._inbox.end(why)

    @property
    def has_enough(self) -> bool:
        """Whether it is not time yet to read on."""
        return self._share.waiting > AHEAD

    def on_gap(self, gap: Gap) -> None:
        """Something may have been missed. If history was rewritten, what the database says about the group belongs to
        the new one."""
        self._settings.on_gap(gap)
        if gap.reason in (GapReason.REWOUND, GapReason.RESTORED):
            self._rewritten = True
            self.wake()

    async def _fetch_due(self, session: Session) -> None:
        room = DUE - self._share.due
        slots, known = as_array(self._share.slots), as_array(self._share.known)
        *rows, following = await self._rows(
            session, self._statements.due, group=self._group, slots=slots, known=known, rows=max(0, room)
        )
        self._to_come = following[8] is not None
        delay = following[8] / 1000 if self._to_come else 3600.0
        self._due_at = monotonic() + (0.05 if len(rows) >= room else delay)
        apart = Apart(self._stream)
        self._share.on_due(
            [
                Item(row[0], row[7], row[1], event(row, apart), 0, row[8], row[9], parked=True)
                for row in sorted(rows, key=lambda row: int(row[0]))
            ]
        )

    # -- handing out, and writing down

    def _fill(self) -> None:
        """Start as much as somebody waits for, and as much as was just settled: whoever did that comes again."""
        if self._stopped or self._finishing:
            return
        wanted = self._inbox.wanted + len(self._telling)
        while wanted > 0 and (items := self._share.start(self._settings.batch)):
            self._starting.append(Claim(self._id, items, [item.entry for item in items]))
            wanted -= 1
        if not self.has_enough:
            self._lanes.feed()

    def _give_back(self) -> None:
        """What is ready to be taken, and was not."""
        for claim in [*self._inbox.withdraw(), *self._starting]:
            claim.lost = LeaseLost("the consumer was closed")
            self._claims.pop(claim, None)
            self._share.give_back(claim.items)
        self._starting.clear()

    async def _write_down(self, session: Session) -> bool:
        write = self._share.plan_write()
        telling, self._telling = self._telling, []
        if write is None:
            assert not telling
            return False
        starting, self._starting = self._starting, []
        self._claims.update(dict.fromkeys(starting))
        try:
            rows = await self._run(session, *self._statement_for(write))
            row = rows[0] if rows else None
            if row is None:
                raise _Ended
        except BaseException:
            self._telling = telling + self._telling  # whoever ends this tells them
            raise
        waiting, missing, places = row
        self._places.update(zip([slot.number for slot in write.slots], places or (), strict=True))
        self._share.on_written(write, waiting)
        self._after_writing(write, missing, starting)
        for settling in telling:
            settling.tell(None)
        self._check_finished()
        return True

    def _statement_for(self, write: Write) -> tuple[str, Mapping[str, Any]]:
        parameters = {"member": self._id, **parameters_of_slots(write, self._places)}
        if write.done or write.noted or write.started or write.parked:
            return self._statements.write_down, {**parameters, **parameters_of_parked(write)}
        return self._statements.write_slots, parameters

    def _after_writing(self, write: Write, missing: Sequence[int], starting: Sequence[Claim[Any]]) -> None:
        if missing:
            self._miss(len(missing))
        if self._stopped or self._finishing:
            for claim in starting:
                self._claims.pop(claim, None)
                self._share.give_back(claim.items)
        elif starting:
            self._inbox.deliver(starting, 0)
        if write.parked or write.done:
            self._due_at = 0.0
        if not all(slot.kept for slot in write.slots):
            self._tell_others()

    def _miss(self, count: int) -> None:
        """Retention has removed entries that were in hand, and were to come again."""
        detail = "retention has removed entries that were in hand, and would have come again"
        self._settings.on_gap(Gap(GapReason.TRIMMED, (self._description.name,), now(), count, detail))

    async def _ask_for_fates(self, session: Session) -> None:
        claims = [claim for claim, doubt in self._doubtful.items() if doubt.ask_at <= monotonic()]
        doubts = [self._doubtful[claim] for claim in claims]
        rows = await self._rows(
            session,
            self._statements.fates,
            xids=as_array([doubt.xid for doubt in doubts]),
            ids=as_array([doubt.noted for doubt in doubts]),
        )
        for number, over, there in rows:
            claim, doubt = claims[number - 1], doubts[number - 1]
            if not there and not (over and doubt.over):  # it may have ended after this statement began
                doubt.wait_longer(over)
                continue
            del self._doubtful[claim]
            del self._claims[claim]
            if there:
                self._share.acknowledge(claim.items, doubt.noted)
                self._observe("handled", claim)
            else:
                self._share.fail(claim.items, claim.error)
                self._observe("handling_failed", claim, claim.error)

    # -- statements

    async def _rows(self, session: Session, statement: str, **parameters: Any) -> list[Any]:
        named = {name: None if value is None else str(value) for name, value in parameters.items()}
        return await self._run(session, statement, named)

    async def _run(self, session: Session, statement: str, parameters: Mapping[str, Any]) -> list[Any]:
        try:
            async with asyncio.timeout(ANSWER):
                return await session.rows(statement, parameters)
        except TimeoutError as error:
            raise ConnectionLost(f"the server did not answer within {ANSWER:g} s") from error

    async def _first(self, session: Session, statement: str, **parameters: Any) -> Any:
        rows = await self._rows(session, statement, group=self._group, **parameters)
        return rows[0] if rows else None


class _Nobody:
    def tell(self, error: PubSubError | None) -> None:
        pass


class _Doubt:
    """A transaction whose end is awaited."""

    def __init__(self, xid: int, noted: int) -> None:
        self.xid = xid
        self.noted = noted
        self.over = False
        self.ask_at = 0.0
        self._pause = 0.001

    def wait_longer(self, over: bool) -> None:
        """It may still be open; or it is over, and the next look shows how it ended."""
        self.over = over
        if not over:
            self.ask_at = monotonic() + self._pause
            self._pause = min(0.5, self._pause * 2)
