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
from pgpubsub.events import Gap, GapReason
from pgpubsub.web.channels import Channels
from pgpubsub.web.items import Item, Topic
from pgpubsub.web.log import Log
from pgpubsub.web.tails import Tail, Tails

__all__ = ["ChannelCursor", "Cursor", "StreamCursor"]

AHEAD, AHEAD_BYTES = 512, 64 << 10
"""Items, and their bytes, that are read for one client before it has taken them, at most: and one more."""

PATIENCE = 1.0
"""Seconds that a client has to take some of it, before others have its turn to read."""

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
        count = missed if self.place >= self.log.incomplete else None
        self.place = self.log.end
        self._on_skipped(missed)
        why = "the client was too slow"
        return self._item(self.topic, Gap(GapReason.OVERFLOW, (self.topic.name,), self._complete_until, count, why))

    def close(self) -> None:
        self._channels.leave(self.topic.name)


class StreamCursor(Cursor):
    """In a stream: in the log of the shared reader, or in one of its own while it catches up with that.

    Args:
        tail: that is followed.
        on_failure: called when the stream cannot be read.
    """

    __slots__ = ("_catching_up", "_item", "_next", "_on_failure", "_position", "_standing", "_tail", "_tails", "_taken")

    def __init__(self, tails: Tails, tail: Tail, item: MakeItem, on_failure: Callable[[PubSubError], object]) -> None:
        super().__init__(tail.log)
        self._tails = tails
        self._tail = tail
        self._item = item
        self._on_failure = on_failure
        self._position = tail.position
        self._next: int | None = None  # its place in the shared log, once it has taken what is in its own
        self._standing = ""  # its position then, past what brought nothing
        self._catching_up: asyncio.Task[None] | None = None
        self._taken = asyncio.Event()

    @property
    def position(self) -> str:
        return self._position

    async def start(self, after: str | Start) -> None:
        """Go to where the client wants to begin.

        Raises:
            PositionError: that is no position of this stream.
            PubSubError: as when a reader is entered.
        """
        if after is END:
            return
        if not isinstance(after, str):
            async with self._tails.turn, self._tail.stream.read(after) as reader:
                assert reader.position is not None
                after = reader.position
        self._position = after
        place = self._tail.place_of(after)
        if place is None:
            self._catch_up()
        else:
            self.place = place

    def settle(self) -> Item | None:
        if self._next is not None and self.place == self.log.end:
            self.log, self.place, self._next = self._tail.log, self._next, None
            self._position = self._standing
        if self.place < self.log.first:
            self._catch_up()
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

    def _catch_up(self) -> None:
        self.log = Log(self.topic, sys.maxsize, sys.maxsize)
        self.place = 0
        self._catching_up = asyncio.create_task(self._run(self._position, self.log))

    async def _run(self, after: str, log: Log) -> None:
        """Read as long as the client takes what is read, and when it has, go on. Few read at the same time, as each may
        have read megabytes ahead, and for a client that takes nothing there is nothing open."""
        try:
            while True:
                async with self._tails.turn, self._tail.stream.read(after) as reader:
                    self._next = await self._read_some(reader, log)
                    standing = reader._standing()  # past a gap, too
                    after = reader.position or after if standing is None else standing.encode()
                if self._next is not None:
                    log.stir()
                    return
                while log.end > log.first:
                    self._taken.clear()
                    await self._taken.wait()
        except PubSubError as error:
            self._on_failure(error)

    async def _read_some(self, reader: AsyncReader[Any], log: Log) -> int | None:
        """Read until it is enough for now. Returns the place in the shared log, once the shared reader has stood where
        this one stands."""
        while await self._room(log):
            event = reader.get_nowait()
            if event is None:
                standing = reader._standing()
                place = self._tail.place_at(standing)
                if place is not None and standing is not None:
                    self._standing = standing.encode()
                    return place
                try:
                    event = await reader.get(LOOK)
                except TimeoutError:
                    return None
            log.append(self._item(log.topic, event))
        return None

    async def _room(self, log: Log) -> bool:
        """Wait a moment for the client to take something, if there is no room for more. Whether there is."""
        try:
            async with asyncio.timeout(PATIENCE):
                while log.end - log.first >= AHEAD or log.bytes >= AHEAD_BYTES:
                    self._taken.clear()
                    await self._taken.wait()
        except TimeoutError:
            return False
        return True
