"""The gateway, without its protocols: a hub, what has come on channels and streams, and the clients that are there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from itertools import count
from math import inf
from time import monotonic, time
from typing import Any

from pgpubsub.aio import AsyncHub
from pgpubsub.contrib.prometheus import DatabaseCollector, HubMetrics
from pgpubsub.core.position import END, Start
from pgpubsub.errors import NotLive, PubSubError
from pgpubsub.events import Undecodable
from pgpubsub.logs import EventLog
from pgpubsub.web.access import Grant, Keys, Patterns
from pgpubsub.web.channels import Channels
from pgpubsub.web.cursors import ChannelCursor, StreamCursor
from pgpubsub.web.items import Item, Topic
from pgpubsub.web.limits import Limits, Rates
from pgpubsub.web.log import Log
from pgpubsub.web.metrics import NAME, Counts, Metrics
from pgpubsub.web.outlet import Ending, Outlet
from pgpubsub.web.problems import Problem
from pgpubsub.web.tails import Tails

__all__ = ["Gateway"]

logger = EventLog("gateway")

TICK = 0.5
"""Seconds from one look at all clients to the next."""

AT_ONCE = 256
"""Clients that are looked at before others of the event loop have their turn."""

KEPT = 100
"""Entries of a stream that are kept though all clients have them: for those that come again."""

TO_CONNECT = 10.0
"""Seconds for which the start waits for the database. It goes on trying after that. To find out that notifications do
not arrive there takes a hub's `heartbeat_timeout`, 5 seconds."""

TO_TAKE = 5.0
"""Seconds that clients have, when the server ends, to take what has come by then. Servers have to give them more."""

TO_CLOSE = 2.0
"""Seconds that closing the hub may take. What was to be sent has been answered by then."""

SHUTDOWN = Ending("shutdown", "the server ends or is replaced: connect again", 1012, drained=True)
EXPIRED = Ending("expired", "the token has expired: connect again with a new one", 4401, again=False)
STALLED = Ending("stalled", "nothing was taken for too long", 1008)
TOO_SLOW = Ending("too-slow", "the client did not keep up", 1008)
FAILED = Ending("failed", "the database cannot be read from: connect again later", 1013, drained=True)


class Gateway:
    """See the module.

    Args:
        hub: not entered yet.
        keys: to verify tokens with; None: there are none.
        public: patterns of what everybody may read.
        limits: of a client.
        schema: where streams are installed.
        keep_alive: seconds of silence after which a client is sent something.
        hubs: observes the hub; None: nobody does.
        database: asks the database for `/metrics`; None: nobody does.
    """

    def __init__(
        self,
        hub: AsyncHub,
        *,
        keys: Keys | None,
        public: Iterable[str],
        limits: Limits,
        schema: str,
        keep_alive: float,
        hubs: HubMetrics | None = None,
        database: DatabaseCollector | None = None,
    ) -> None:
        self.hub = hub
        self.limits = limits
        self.rates = Rates(limits.rate)
        self.counts = Counts()
        self.outlets: set[Outlet] = set()
        self.schema = schema
        self.ending: Ending | None = None
        """Why it takes no more clients."""
        self._ends_at = inf
        self._answering: set[asyncio.Timeout] = set()
        self._keys = keys
        self._public = Grant(read=Patterns(public))
        self.keep_alive = keep_alive
        self._numbers = count()
        self.channels = Channels(hub, limits, self._item, lambda _: self._end_all(FAILED))
        self.tails = Tails(hub, schema, limits, self._item, lambda topic, _: self._end_all(FAILED, topic))
        hubs = hubs or HubMetrics(None)
        hubs.watch(NAME, hub)
        self.metrics = Metrics(self, hubs, database)
        self._ticking: asyncio.Task[None] | None = None

    # -- who may what

    def grant(self, token: str | None) -> Grant:
        """What the bearer of `token` may.

        Raises:
            Problem: 401, it is not valid.
        """
        if token is None or self._keys is None:
            return self._public
        grant = self._keys.grant(token)
        read = Patterns((*self._public.read.given, *grant.read.given))
        return Grant(read, grant.write, grant.subject, grant.expires)

    def continuing(self, context: Mapping[str, Any]) -> AbstractContextManager[object]:
        """What is sent within is a part of the trace that `context` tells of, if the hub traces anything."""
        tracing = self.hub.tracing
        return nullcontext() if tracing is None else tracing.continuing(context)

    # -- clients

    def admit(self, identity: str, grant: Grant) -> Outlet:
        """A client that stays. To be dismissed.

        Raises:
            Problem: 503, there are too many, or the server ends.
        """
        if self.ending is not None:
            raise Problem(503, self.ending.code, self.ending.detail, retry_after=1)
        if len(self.outlets) >= self.limits.clients:
            raise Problem(503, "full", "there are too many clients here: try again later", retry_after=10)
        self._start_ticking()
        outlet = Outlet(identity, grant.expires, self.counts)
        self.counts.clients += 1
        self.outlets.add(outlet)
        return outlet

    def dismiss(self, outlet: Outlet) -> None:
        """A client has gone."""
        self.outlets.discard(outlet)
        outlet.close()

    async def follow(self, outlet: Outlet, topic: Topic, after: str | Start = END) -> None:
        """Have what comes there delivered to a client.

        Raises:
            Problem: there are too many, or it is followed already.
            PubSubError: as when a subscription or a reader is entered.
        """
        if topic in outlet.topics:
            raise Problem(409, "followed", f"{topic.path} is followed already")
        if len(outlet.topics) >= self.limits.subscriptions:
            raise Problem(403, "too-many", f"a connection follows {self.limits.subscriptions} at most: open another")
        if not self.is_followed(topic) and len(self.channels) + len(self.tails) >= self.limits.topics:
            raise Problem(503, "full", "too many channels and streams are followed here: try later", retry_after=10)
        if topic.kind == "channel":
            log = await self.channels.follow(topic.name)
            outlet.add(ChannelCursor(self.channels, log, self._made, lambda count: self._on_skipped(outlet, count)))
            return
        tail = await self.tails.follow(topic.name)
        cursor = StreamCursor(self.tails, tail, self._made, lambda _: outlet.end(FAILED))
        try:
            await cursor.start(after)
        except BaseException:
            cursor.close()
            raise
        outlet.add(cursor)

    def is_followed(self, topic: Topic) -> bool:
        """Whether somebody follows it already, or has until lately."""
        return topic.name in (self.channels if topic.kind == "channel" else self.tails)

    # -- life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """From the server's start to its end.

        Raises:
            UnusableDeployment: notifications cannot arrive here, as behind a pooler in transaction mode.
            ServerInRecovery: the server is a standby, and the hub does not wait for a primary.
        """
        try:
            await self.hub.wait_until_live(TO_CONNECT)
        except NotLive as error:
            logger.warning("not_live_yet", "the database cannot be reached yet: %(error)s", error=error)
        self._start_ticking()
        try:
            yield
        finally:
            self.shut_down()
            await self.close()

    def readiness(self) -> tuple[str, int]:
        """Whether clients are to be sent here, in words and as an HTTP status."""
        if self.ending is not None:
            return f"{self.ending.detail}\n", 503
        state = self.hub.state
        return ("live\n", 200) if state.live else ("the database cannot be reached\n", 503)

    def shut_down(self) -> None:
        """Have clients get what has come by now, and tell them to connect elsewhere."""
        if self.ending is None:
            self.ending = SHUTDOWN
            self._ends_at = monotonic() + TO_TAKE
            self._end_all(SHUTDOWN)
            for limit in self._answering:
                limit.reschedule(asyncio.get_running_loop().time() + TO_TAKE)

    @asynccontextmanager
    async def answering(self, otherwise: Problem) -> AsyncIterator[None]:
        """Within this, what a request takes is broken off when the server ends and others have taken what is theirs.

        Raises:
            Problem: it was: `otherwise`.
        """
        limit = asyncio.timeout(None if self.ending is None else TO_TAKE)
        try:
            async with limit:
                self._answering.add(limit)
                yield
        except TimeoutError:
            if limit.expired():
                raise otherwise from None
            raise
        finally:
            self._answering.discard(limit)

    async def close(self) -> None:
        """Close the hub."""
        if self._ticking is not None:
            self._ticking.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticking
        await self.channels.close()
        await self.tails.close()
        await self.hub.close(TO_CLOSE)
        self.metrics.close()

    def _end_all(self, ending: Ending, topic: Topic | None = None) -> None:
        for outlet in tuple(self.outlets):
            if topic is None or topic in outlet.topics:
                outlet.end(ending)

    def _on_skipped(self, outlet: Outlet, count: int) -> None:
        self.counts.skipped += count
        if self.limits.slow == "close":
            self.counts.cut_off += 1
            outlet.end(TOO_SLOW)

    def _item(self, topic: Topic, event: Any) -> Item:
        self.counts.received += 1
        return self._made(topic, event)

    def _made(self, topic: Topic, event: Any) -> Item:
        """For one client alone."""
        if isinstance(event, Undecodable):  # without a type, that are headers beyond Python's JSON: the entry is there
            event = event.event
        return Item(topic, event, next(self._numbers), round(time() * 1000))

    # -- what time brings

    def _start_ticking(self) -> None:
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            try:
                await self._look_at_all()
                self._forget_what_all_have()
                self.metrics.update()
                self.tails.tidy()
                await self.channels.tidy()
            except PubSubError as error:
                logger.warning("tidying_failed", "%(error)s", error=error)
            except Exception:
                logger.exception("tick_failed", "a fault of our own; time goes on")

    async def _look_at_all(self) -> None:
        outlets = tuple(self.outlets)
        for start in range(0, len(outlets), AT_ONCE):
            now = monotonic()
            for outlet in outlets[start : start + AT_ONCE]:
                self._look_at(outlet, now)
            await asyncio.sleep(0)  # if all have been silent for as long, all are sent something now

    def _forget_what_all_have(self) -> None:
        needed: dict[Log, int] = {}
        for outlet in self.outlets:
            for log, place in outlet.places():
                needed[log] = min(place, needed.get(log, place))
        for log in self.channels.logs.values():
            log.forget(needed.get(log, log.end))
        for tail in self.tails.tails.values():
            tail.log.forget(min(needed.get(tail.log, tail.log.end), tail.log.end - KEPT))

    def _cut_off(self, outlet: Outlet) -> None:
        """What is being sent to it is not taken."""
        outlet.end(STALLED)
        if not outlet.cut_off and outlet.task is not None:
            outlet.cut_off = True
            self.counts.cut_off += 1
            outlet.task.cancel()

    def check_expired(self, outlet: Outlet) -> None:
        """End its connection if its token has."""
        if outlet.expires is not None and time() >= outlet.expires:
            outlet.end(EXPIRED)

    def _look_at(self, outlet: Outlet, now: float) -> None:
        self.check_expired(outlet)
        if outlet.stalled_since is not None:
            if now > min(outlet.stalled_since + self.limits.stalled, self._ends_at):
                self._cut_off(outlet)
        elif now > outlet.sent_at + self.keep_alive:
            outlet.wake()
