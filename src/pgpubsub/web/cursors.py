"""A client's places: what it has got of each channel and stream that it follows."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pgpubsub.aio import AsyncReader
from pgpubsub.core.position import END, Start
from pgpubsub.errors import PubSubError
from pgpubsub.events import Entry, Gap, GapReason
from pgpubsub.web.channels import Channels
from pgpubsub.web.items import Item, Topic
from pgpubsub.web.log import Log
from pgpubsub.web.tails import Tail, Tails

__all__ = ["ChannelCursor", "Cursor", "StreamCursor"]

AHEAD, AHEAD_BYTES = 512, 1 << 20
"""Items, and their bytes, that are read for one client before it has taken them, at most: and one more."""

LOOK = 0.25
"""Seconds after which a client that has caught up looks again whether the shared reader stands there too."""

MakeItem = Callable[[Topic, Any], Item]


class Cursor:
    """A place in one channel or stream."""

    __slots__ = ("log", "place")

    def __init__(self, log: Log) -> None:
        self.log = log
        self.place = log.end

    @property
    def topic(self) -> Topic:
        return self.log.topic

    def settle(self) -> Item | None:
        """Go where there is something to be taken from `place` on. Returns what is to be told of that, if anything."""
        raise NotImplementedError

    def on_taken(self, place: int) -> None:
        """The client has got what is before `place`."""
        self.place = place

    @property
    def position(self) -> str | None:
        """Of a stream: where the client goes on another time."""
        return None

    def close(self) -> None:
        """It is not followed any more."""
        raise NotImplementedError


class ChannelCursor(Cursor):
    """In a channel. What has gone before the client took it is gone: a gap says so."""

    __slots__ = ("_channels", "_complete_until", "_item", "_on_skipped")

    def __init__(self, channels: Channels, log: Log, item: MakeItem, on_skipped: Callable[[int], object]) -> None:
        super().__init__(log)
        self._on_skipped = on_skipped
        self._channels = channels
        self._item = item
        self._complete_until = datetime.now(UTC)

    def settle(self) -> Item | None:
        if self.place >= self.log.first:
            if self.place == self.log.end:
                self._complete_until = datetime.now(UTC)
            return None
        missed = self.log.end - self.place
        self.place = self.log.end
        self._on_skipped(missed)
        why = "the client was too slow"
        return self._item(self.topic, Gap(GapReason.OVERFLOW, (self.topic.name,), self._complete_until, missed, why))

    def close(self) -> None:
        self._channels.leave(self.topic.name)


class StreamCursor(Cursor):
    """In a stream: in the log of the shared reader, or in one of its own while it catches up with that.

    Args:
        tail: that is followed.
        on_failure: called when the stream cannot be read.
    """

    __slots__ = ("_catching_up", "_item", "_next", "_on_failure", "_position", "_tail", "_tails", "_taken")

    def __init__(self, tails: Tails, tail: Tail, item: MakeItem, on_failure: Callable[[PubSubError], object]) -> None:
        super().__init__(tail.log)
        self._tails = tails
        self._tail = tail
        self._item = item
        self._on_failure = on_failure
        self._position = tail.position
        self._next: int | None = None  # its place in the shared log, once it has taken what is in its own
        self._catching_up: asyncio.Task[None] | None = None
        self._taken = asyncio.Event()

    @property
    def position(self) -> str:
        return self._position

    async def start(self, after: str | Start) -> None:
        """Go to where the client wants to begin.

        Raises:
            PubSubError: as when a reader is entered.
        """
        if after is END:
            return
        if isinstance(after, str):
            place = self._tail.place_of(after)
            self._position = after
            if place is not None:
                self.place = place
                return
        reader = self._tail.stream.read(after)
        await reader.__aenter__()
        self._catch_up(reader, entered=True)

    def settle(self) -> Item | None:
        if self._next is not None and self.place == self.log.end:
            self.log, self.place, self._next = self._tail.log, self._next, None
        if self.place < self.log.first:
            self._catch_up(self._tail.stream.read(self._position), entered=False)
        return None

    def on_taken(self, place: int) -> None:
        for item in reversed(self.log.items(self.place, place)):
            if item.place is not None:
                self._position = item.place
                break
        self.place = place
        if self.log is not self._tail.log:
            self.log.forget(place)
            self._taken.set()

    def close(self) -> None:
        if self._catching_up is not None:
            self._catching_up.cancel()
        self._tails.leave(self._tail)

    # -- while it catches up

    def _catch_up(self, reader: AsyncReader[Any], *, entered: bool) -> None:
        if entered and reader.position is not None:
            self._position = reader.position
        self.log = Log(self.topic, sys.maxsize, sys.maxsize)
        self.place = 0
        self._catching_up = asyncio.create_task(self._run(reader, self.log, entered))

    async def _run(self, reader: AsyncReader[Any], log: Log, entered: bool) -> None:
        try:
            if not entered:
                await reader.__aenter__()
            while (event := await self._read(reader)) is not None:
                if isinstance(event, Entry | Gap):
                    log.append(self._item(log.topic, event))
                while log.end - log.first > AHEAD or log.bytes > AHEAD_BYTES:
                    self._taken.clear()
                    await self._taken.wait()
            log.stir()
        except PubSubError as error:
            self._on_failure(error)
        finally:
            reader.close()

    async def _read(self, reader: AsyncReader[Any]) -> Any:
        """The next event. None: the shared reader has stood where this one stands."""
        while (event := reader.get_nowait()) is None:
            self._next = self._tail.place_at(reader._standing())
            if self._next is not None:
                return None
            try:
                return await reader.get(LOOK)
            except TimeoutError:
                pass
        return event
