"""One client's connection, as far as what it gets is concerned: where it stands, and why it ends."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from operator import attrgetter
from time import monotonic

from pgpubsub.web.cursors import Cursor
from pgpubsub.web.items import Item, Topic
from pgpubsub.web.log import Log
from pgpubsub.web.metrics import Counts

__all__ = ["Ending", "Outlet"]

AT_ONCE_BYTES = 1 << 20
AT_ONCE = 256
"""Items of one channel or stream that are sent together, at most."""

_number = attrgetter("number")


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a connection ends, in a word for programs and a sentence for people."""

    code: str
    detail: str
    close: int
    """The status code with which a WebSocket is closed (RFC 6455, section 7.4)."""
    drained: bool = False
    """Whether the client gets first what has come by then."""
    again: bool = True
    """Whether it may come again as it is."""


class Outlet:
    """See the module.

    Args:
        identity: whose it is.
        expires: when its token does, in seconds since 1970; None: it has none.
        counts: what is delivered to it is counted there.
    """

    __slots__ = (
        "_counts",
        "_cursors",
        "_loop",
        "_waiter",
        "_write",
        "cut_off",
        "ending",
        "expires",
        "identity",
        "sent_at",
        "stalled_since",
        "task",
    )

    def __init__(self, identity: str, expires: float | None, counts: Counts) -> None:
        self.identity = identity
        self.expires = expires
        self.ending: Ending | None = None
        self.cut_off = False
        """Whether its task was cancelled, as nothing was taken from it."""
        self.sent_at = monotonic()
        """When something was sent to it last."""
        self.stalled_since: float | None = None
        """Since when it has not taken what is being sent."""
        self.task = asyncio.current_task()
        """Which sends."""
        self._counts = counts
        self._cursors: dict[Topic, Cursor] = {}
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._write: Callable[[bytes], bool] | None = None

    # -- what it follows

    @property
    def topics(self) -> Sequence[Topic]:
        """What it follows, in the order in which that was begun."""
        return tuple(self._cursors)

    def add(self, cursor: Cursor) -> None:
        """Follow one more."""
        self._cursors[cursor.topic] = cursor
        self.wake()

    def remove(self, topic: Topic) -> None:
        """Follow one less."""
        cursor = self._cursors.pop(topic)
        cursor.log.do_not_call(self._due)
        cursor.close()

    def close(self) -> None:
        """It is gone."""
        for topic in self.topics:
            self.remove(topic)

    def places(self) -> Iterator[tuple[Log, int]]:
        """Where it is in each log."""
        return ((cursor.log, cursor.place) for cursor in self._cursors.values())

    @property
    def positions(self) -> dict[Topic, str]:
        """Of the streams among them."""
        positions = {topic: cursor.position for topic, cursor in self._cursors.items()}
        return {topic: position for topic, position in positions.items() if position is not None}

    # -- what is due

    def take(self) -> Sequence[Item]:
        """What is due, some of it if that is much, in the order in which it came. Empty: nothing."""
        found: list[Item] = []
        pieces: list[tuple[Cursor, Sequence[Item]]] = []
        until = inf
        for cursor in self._cursors.values():
            gap = cursor.settle()
            if gap is not None:
                found.append(gap)
            log, place = cursor.log, cursor.place
            if place < log.end:
                piece = log.items(place, place + AT_ONCE)
                fit = bisect_right(list(accumulate(item.size for item in piece)), AT_ONCE_BYTES // len(self._cursors))
                piece = piece[: max(1, fit)]
                pieces.append((cursor, piece))
                if len(piece) < min(log.end - place, AT_ONCE) or len(piece) == AT_ONCE:
                    until = min(until, piece[-1].number)
        for cursor, piece in pieces:
            count = bisect_right(piece, until, key=_number)
            cursor.on_taken(cursor.place + count)
            found += piece[:count]
        self._counts.delivered += len(found)
        if len(pieces) > 1:
            found.sort(key=_number)
        return found

    def take_chunk(self) -> bytes:
        """The same for a client that follows one channel or stream, in the form `plain`."""
        (cursor,) = self._cursors.values()
        gap = cursor.settle()
        log, place = cursor.log, cursor.place
        end = min(log.end, place + AT_ONCE)
        if place >= end:
            return b"" if gap is None else gap.encoded("plain")
        chunk = log.chunk(place, end, "plain")
        cursor.on_taken(end)
        self._counts.delivered += end - place
        return chunk if gap is None else gap.encoded("plain") + chunk

    def write_by(self, write: Callable[[bytes], bool]) -> None:
        """For a client that follows one channel or stream: write what is due by this while it waits, without waking its
        task. What returns False has not been written, and is left to the task."""
        self._write = write

    async def wait(self) -> None:
        """Wait until something may be due, or the connection is to end."""
        for cursor in self._cursors.values():
            cursor.log.call(self._due)
        self._waiter = self._loop.create_future()
        await self._waiter

    def wake(self) -> None:
        """Have it look."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self, ending: Ending) -> None:
        """End the connection. The first reason counts."""
        if self.ending is None:
            self.ending = ending
            self.wake()

    def _due(self) -> None:
        """Something is due: write it, if nothing stands against that."""
        if self._write is None or self.ending is not None or self.stalled_since is not None:
            self.wake()
            return
        (cursor,) = self._cursors.values()
        log, place = cursor.log, cursor.place
        end = log.end
        if log.first <= place < end <= place + AT_ONCE and self._write(chunk := log.chunk(place, end, "plain")):
            self.sent_at = monotonic()
            cursor.on_taken(end)
            self._counts.delivered += end - place
            self._counts.bytes += len(chunk)
            cursor.settle()  # which has nothing to tell at the end of a log, but may go on to another
            if cursor.log is log:
                log.call(self._due)
                return
        self.wake()
