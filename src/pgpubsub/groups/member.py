"""A member of a group: takes slots, reads their entries, hands them out and writes down what became of them.

What to hand out and to write down is decided by `core.groups`. All is written over one connection, in one place of one
task, so that nothing overtakes anything. If that connection is lost, or the lease was, everything is forgotten and read
again: the database knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, NamedTuple

from pgpubsub.core.entries import hint_channel
from pgpubsub.core.groups import Share
from pgpubsub.core.position import BEGINNING, Covered, Position, Start, stream_id
from pgpubsub.core.reading import Batch
from pgpubsub.core.slots import UNSEEN, Item, Lane, Place, quota
from pgpubsub.errors import ConnectionLost, LeaseLost, PubSubError, SubscriptionClosed
from pgpubsub.events import Gap, GapReason
from pgpubsub.groups.claims import Apart
from pgpubsub.groups.deliveries import Deliveries
from pgpubsub.groups.hints import group_channel, group_id, tell
from pgpubsub.groups.inbox import ClaimInbox
from pgpubsub.groups.lanes import Lanes, place_at
from pgpubsub.groups.membership import Ended, Membership
from pgpubsub.hubs.engine import Engine
from pgpubsub.hubs.mailbox import now
from pgpubsub.logs import EventLog
from pgpubsub.randomness import new_delays
from pgpubsub.streams.description import Description
from pgpubsub.streams.rows import event, size
from pgpubsub.streams.service import Streams
from pgpubsub.streams.session import Session

__all__ = ["Member", "Settings"]

logger = EventLog("groups")

AHEAD = 2000
"""Entries that are left when the next page is read,"""

LONG = 1 << 20
"""unless they have more bytes than this. So many are fetched of parked entries, too, or one that has more."""

TICK = 2.0
"""Seconds after which a member looks who the others are, at most."""

DUE = 100
"""Parked entries that are fetched at a time."""

FULL = 0.05
"""Seconds until more are looked for where there were as many."""

ENDED = "the membership has ended: its lease was over, the server crashed, or the group was set elsewhere"


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
        self.deliveries = Deliveries(engine, description.name, settings.group, inbox, self.wake, self._new_share)
        """What consumers have of it."""
        self._lanes = Lanes(streams, self._description, settings.follow, self)
        self._apart = Apart(stream_id(description.name))
        self._hint_channel = hint_channel(self._apart.stream)
        self._group_channel = group_channel(group_id(self._apart.stream, settings.group))
        self.loop = asyncio.get_running_loop()
        """In which all of it happens."""
        self._woken = asyncio.Event()
        self._stopped = False
        self.error: PubSubError | None = None
        """Why it could not take part when it tried last."""
        self.joined: asyncio.Future[None] = self.loop.create_future()
        """Done when it takes part for the first time."""
        self._delays = new_delays()
        self._former: str | None = None  # whose membership we know to have ended
        self._begin()

    @property
    def channels(self) -> Sequence[str]:
        """On which it is told that there is something to do."""
        return self._hint_channel, self._group_channel

    def _new_share(self) -> Share:
        return Share(self._settings.attempts, self._settings.backoff, self._settings.batch)

    def _begin(self) -> None:
        self._lanes_due = False
        self._rewritten = False
        self._doubted = False  # whether the server may not be there any more
        self._expected = 0  # more slots, when it looked last
        self._to_come = False  # whether parked entries will be due within a day
        self._tick_at = self._due_at = 0.0

    @property
    def _share(self) -> Share:
        return self.deliveries.share

    # -- what others tell it

    def wake(self) -> None:
        """There may be something to do."""
        self._woken.set()

    def on_hint(self, channels: Sequence[str]) -> None:
        """Something has come on these channels."""
        if self._group_channel in channels:
            self._tick_at = self._due_at = 0.0
            self.wake()
        if self._hint_channel in channels:
            self._lanes.wake()

    def retry(self) -> None:
        """The server can be reached again."""
        self._lanes.retry()
        self._doubted = True
        self.wake()

    def finish(self) -> None:
        """Hand out nothing more; what is in hand will be settled."""
        self.deliveries.finish()
        self._inbox.finish()

    async def finished(self) -> None:
        """Wait until nothing is in hand, when nothing more is handed out."""
        self.finish()
        await self.deliveries.finished()

    def stop(self) -> None:
        """Leave."""
        self._stopped = True
        self.deliveries.finish()

    # -- its life

    async def run(self) -> None:
        """Take part until it is stopped, or else to the end."""
        try:
            while not self._stopped:
                try:
                    async with self._streams.desk(self._description.schema) as session:
                        await self._take_part(session)
                except Ended:
                    self._lose(LeaseLost(ENDED))
                except ConnectionLost as error:
                    self.error = error
                    self._lose(LeaseLost(f"the connection of the group was lost: {error}"))
                    if not self._stopped:
                        logger.warning(
                            "consuming_interrupted",
                            "group %(group)r: %(error)s",
                            stream=self._description.name,
                            group=self._settings.group,
                            error=error,
                        )
                        await self._wait(max(0.02, next(self._delays)))
            self._inbox.end(SubscriptionClosed("the consumer was closed"))
        except PubSubError as error:
            self._inbox.end(error)
        except Exception as error:
            logger.exception(
                "consumer_failed",
                "consuming as group %(group)r failed",
                stream=self._description.name,
                group=self._settings.group,
            )
            failure = PubSubError(f"consuming as {self._settings.group!r} failed, by a fault of our own: {error!r}")
            failure.__cause__ = error
            self._inbox.end(failure)
        finally:
            self._lose(LeaseLost("the consumer was closed"))

    async def _take_part(self, session: Session) -> None:
        home = await session.home(self._streams.statements(self._description.schema))
        here = Position(home.birth, self._apart.stream, home.timeline)
        membership = await self._join(session)
        while not self._stopped:
            self._woken.clear()
            if self._rewritten:
                raise Ended
            if self._doubted:
                self._doubted = False
                await membership.prove()
            if monotonic() >= self._tick_at:
                await self._tick(membership)
            if self._lanes_due:
                self._lanes_due = False
                self._lanes.read(self._share.lanes(), here)
            if monotonic() >= self._due_at:
                await self._fetch_due(membership)
            await self._ask_for_fates(membership)
            self.deliveries.start(membership.id, self._settings.batch)
            if not self.has_enough:
                self._lanes.feed()
            if await self._write_down(membership):
                continue
            if self._at_end:
                self._inbox.end(SubscriptionClosed("the consumer has come to the end"))
                break
            await self._wait(min(self._tick_at, self._due_at, self.deliveries.doubts.next_at) - monotonic())
        await self._leave(membership)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass

    def _lose(self, error: LeaseLost) -> None:
        self._lanes.end()
        self._begin()
        self.deliveries.lose(error)

    @property
    def _at_end(self) -> bool:
        return (
            not self._settings.follow
            and self._expected <= 0
            and self._lanes.done
            and self._share.idle
            and not (self.deliveries.any or self._to_come)
        )

    # -- members and slots

    async def _join(self, session: Session) -> Membership:
        description, settings = self._description, self._settings
        membership = Membership(session, description.schema, description.name, settings.group, settings.lease)
        start = Place(Covered())
        if settings.start is not BEGINNING and not await membership.exists():
            start, gaps = await place_at(self._streams, description, settings.start)
            for gap in gaps:
                if gap.reason is not GapReason.TRIMMED:  # which is found again by whoever reads from there
                    settings.on_gap(gap)
        await membership.join(start, self._former)
        self._former = membership.id
        self._tell_others()
        self.error = None
        self._delays = new_delays()
        return membership

    async def _tick(self, membership: Membership) -> None:
        self._tick_at = monotonic() + min(TICK, self._settings.lease / 3)
        members = await membership.tick()
        if members.removed:
            self._miss(members.removed)
        self._share.refresh()
        due = self._expected = quota(members.ids, membership.id) - len(self._share.slots)
        if due < 0:
            self._share.leave(-due)
            self._lanes_due = True
        elif due and members.free:
            self._expected -= await self._take_slots(membership, due)
        if not self.joined.done():
            self.joined.set_result(None)

    async def _take_slots(self, membership: Membership, wanted: int) -> int:
        places, blocked = await membership.take(wanted)
        for number, place in places:
            self._share.on_taken(number, place, blocked)
        if places:
            self._lanes_due = True
            self._due_at = 0.0
        return len(places)

    async def _leave(self, membership: Membership) -> None:
        self._share.refresh()
        while await self._write_down(membership):
            pass
        await membership.leave()
        self._tell_others()

    def _tell_others(self) -> None:
        tell(self._engine, self._group_channel)

    # -- reading

    def on_read(self, lane: Lane, rows: Sequence[Any], batch: Batch) -> None:
        """The next entries of a lane."""
        items = [Item(row[0], row[7], row[1], event(row, self._apart), row[6], size=size(row)) for row in rows]
        self._share.on_read(lane, items, batch)
        if (lane.start.target is not None or lane.start == UNSEEN) and batch.after.target is None:
            self._lanes_due = True  # it goes on with the others
        self.wake()

    def on_failed(self, why: Exception) -> None:
        """A lane cannot be read."""
        self._inbox.end(why)

    @property
    def has_enough(self) -> bool:
        """Whether it is not time yet to read on."""
        return self._share.waiting > AHEAD or self._share.waiting_bytes > LONG

    def on_gap(self, gap: Gap) -> None:
        """Something may have been missed. If history was rewritten, what the database says about the group belongs to
        the new one."""
        self._settings.on_gap(gap)
        if gap.reason in (GapReason.REWOUND, GapReason.RESTORED):
            self._rewritten = True
            self.wake()

    async def _fetch_due(self, membership: Membership) -> None:
        share = self._share
        room, room_bytes, but = DUE - share.due, LONG - share.due_bytes, share.long_lines
        if room <= 0 or room_bytes <= 0:
            self._due_at = monotonic() + FULL
            return
        items, following = await membership.due(share.slots, share.known, room, room_bytes, but)
        self._to_come = following is not None
        were_all = len(items) < room and sum(item.size for item in items) < room_bytes and not but
        pause = FULL if not were_all else 3600.0 if following is None else following
        self._due_at = monotonic() + pause
        share.on_due(items)

    # -- writing down

    async def _write_down(self, membership: Membership) -> bool:
        writing = self.deliveries.plan_write()
        if writing is None:
            return False
        written = await membership.write(writing.write)
        self.deliveries.on_written(writing, written.waiting)
        if written.missing:
            self._miss(written.missing)
        if writing.write.parked or writing.write.done:
            self._due_at = 0.0
        if not all(slot.kept for slot in writing.write.slots):
            self._tell_others()
        return True

    def _miss(self, count: int) -> None:
        """Retention has removed entries that were in hand, and were to come again."""
        detail = "retention has removed entries that were in hand, and would have come again"
        self._settings.on_gap(Gap(GapReason.TRIMMED, (self._description.name,), now(), count, detail))

    async def _ask_for_fates(self, membership: Membership) -> None:
        doubts = self.deliveries.doubts.to_ask()
        if not doubts:
            return
        for doubt, (over, there) in zip(doubts, await membership.fates(doubts), strict=True):
            if doubt.has_ended(over, there):
                self.deliveries.on_fate(doubt, there)
