"""The streams that clients follow: one reader a stream at its end, and a log each.

A client that comes with a position of its own reads up to there by itself first. It is there when it stands exactly
where the shared reader has stood, at a place that its log still has: then both have got the same entries, and it goes
on in the log. Positions are sets of transactions, so that can be seen from them (`core.position`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

from pgpubsub.aio import AsyncHub, AsyncStream
from pgpubsub.core.position import END, Position, stream_id
from pgpubsub.errors import PubSubError, SubscriptionClosed
from pgpubsub.web.items import Item, Topic
from pgpubsub.web.limits import Limits
from pgpubsub.web.log import Log

__all__ = ["Tail", "Tails"]

LINGER = 30.0
"""Seconds for which a stream is read that nobody follows any more."""

READERS = 32
"""Clients that read by themselves at the same time, at most: each may have read a page ahead."""

STANDS = 1000
"""Places at which the reader has stood that are remembered, at most."""

Stand = tuple[Any, ...]


class Tail:
    """The end of one stream, as one reader sees it, for all clients.

    Args:
        reader: from the stream's end on, not entered yet.
        item: makes one of what has come.
    """

    def __init__(self, stream: AsyncStream[str | bytes], log: Log, item: Callable[[Topic, Any], Item]) -> None:
        self.stream = stream
        self.log = log
        self.followers = 0
        self.left_at = 0.0
        self.reading: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when it has begun to read."""
        self._item = item
        self._reader = stream.read(END)
        self._stands: dict[Stand, int] = {}

    @property
    def position(self) -> str:
        """Where a client goes on that has got all that is in the log."""
        position = self._reader.position
        assert position is not None
        return position

    async def run(self) -> None:
        """Read, until it is closed.

        Raises:
            PubSubError: it cannot be read, or not any more.
        """
        async with self._reader as reader:
            self._note_stand()
            self.reading.set_result(None)
            async for event in reader:
                self.log.append(self._item(self.log.topic, event))
                while (more := reader.get_nowait()) is not None:
                    self.log.append(self._item(self.log.topic, more))
                    await self.log.taken()
                self._note_stand()

    def close(self) -> None:
        """Read no more."""
        self._reader.close()

    def place_of(self, position: str) -> int | None:
        """The place in the log that is behind just what a reader at `position` has got; None: there is none.

        Raises:
            PositionError: it is no position of this stream.
        """
        stand = Position.decode(position, stream_id(self.log.topic.name))
        place = self.place_at(stand)
        return self.log.behind(position) if place is None else place

    def place_at(self, position: Position | None) -> int | None:
        """The same of a position that was read already."""
        place = None if position is None else self._stands.get(_stand(position))
        return place if place is not None and place >= self.log.first else None

    def _note_stand(self) -> None:
        position = self._reader._standing()
        if position is None:
            return
        stand = _stand(position)
        self._stands.pop(stand, None)
        self._stands[stand] = self.log.end
        if len(self._stands) > STANDS:
            del self._stands[next(iter(self._stands))]


def _stand(position: Position) -> Stand:
    """What tells that two readers have got the same. After a crash others may have the ids of transactions that were
    lost; the anchor is the entry itself."""
    return position.birth, position.timeline, position.covered, position.anchor, position.target, position.last


class Tails:
    """All of them.

    Args:
        hub, schema: whose streams these are, and where they are installed.
        item: makes one of what has come.
        on_failure: called when a stream cannot be read any more.
    """

    def __init__(
        self,
        hub: AsyncHub,
        schema: str,
        limits: Limits,
        item: Callable[[Topic, Any], Item],
        on_failure: Callable[[Topic, PubSubError], object],
    ) -> None:
        self.tails: dict[str, Tail] = {}
        self._hub = hub
        self._schema = schema
        self._limits = limits
        self._item = item
        self._on_failure = on_failure
        self.turn = asyncio.Semaphore(READERS)
        """For clients that read by themselves."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def follow(self, name: str) -> Tail:
        """The end of a stream. To be left again.

        Raises:
            PubSubError: as when a reader is entered.
        """
        tail = self.tails.get(name)
        if tail is None:
            tail = self.tails[name] = self._begin(name)
        tail.followers += 1
        try:
            await asyncio.shield(tail.reading)
        except BaseException:
            self.leave(tail)
            raise
        return tail

    def __len__(self) -> int:
        """How many are read."""
        return len(self.tails)

    def __contains__(self, name: str) -> bool:
        return name in self.tails

    def leave(self, tail: Tail) -> None:
        """One of those who follow a stream does not any more."""
        tail.followers -= 1
        tail.left_at = monotonic()

    def tidy(self) -> None:
        """Read no more what nobody has followed for a while."""
        for name, tail in list(self.tails.items()):
            if not tail.followers and monotonic() > tail.left_at + LINGER:
                del self.tails[name]
                tail.close()

    async def close(self) -> None:
        """Read no more."""
        for tail in self.tails.values():
            tail.close()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, name: str) -> Tail:
        stream = self._hub.stream(name, schema=self._schema)
        log = Log(Topic("stream", name), self._limits.buffer, self._limits.buffer_bytes)
        tail = Tail(stream, log, self._item)
        task = asyncio.create_task(self._run(tail))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return tail

    async def _run(self, tail: Tail) -> None:
        topic = tail.log.topic
        error: PubSubError = SubscriptionClosed("the stream is not read any more")
        try:
            await tail.run()
        except PubSubError as failure:
            error = failure
        if self.tails.get(topic.name) is tail:
            del self.tails[topic.name]
        if not tail.reading.done():
            tail.reading.set_exception(error)
            tail.reading.exception()  # perhaps nobody waits any more
        elif tail.followers:
            self._on_failure(topic, error)
