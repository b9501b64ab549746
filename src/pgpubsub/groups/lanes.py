"""Reading the entries of a member's slots: those together that stand in the midst of the same, and all the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from pgpubsub.core.position import END, Position, Start
from pgpubsub.core.reading import Batch
from pgpubsub.core.slots import Lane, Place
from pgpubsub.errors import SubscriptionClosed
from pgpubsub.events import Gap
from pgpubsub.groups.statements import SlotStatements
from pgpubsub.streams.description import Description
from pgpubsub.streams.reader import Reader
from pgpubsub.streams.service import Streams

__all__ = ["Lanes", "place_at"]


class Taker(Protocol):
    """Who wants the entries."""

    @property
    def has_enough(self) -> bool:
        """Whether it is not time yet to read on."""

    def on_read(self, lane: Lane, rows: Sequence[Any], batch: Batch) -> None:
        """The next entries of a lane."""

    def on_gap(self, gap: Gap) -> None:
        """Something may have been missed."""

    def on_failed(self, why: Exception) -> None:
        """A lane cannot be read."""

    def wake(self) -> None:
        """A lane has come to its end."""


class Lanes:
    """See the module.

    Args:
        streams: the hub's.
        description: of the one.
        follow: whether to wait for more at the end.
        taker: gets the entries.
    """

    def __init__(self, streams: Streams, description: Description[Any], follow: bool, taker: Taker) -> None:
        self._streams = streams
        self._description = description
        self._follow = follow
        self._taker = taker
        self._lanes: list[_Lane] = []

    def read(self, lanes: Sequence[Lane], here: Position) -> None:
        """Read these from now on, in place of others. `here`: a position of the history that is read."""
        self.end()
        for lane in lanes:
            start = replace(here, covered=lane.start.covered, target=lane.start.target, last=lane.start.last)
            statements = SlotStatements(self._description.schema, lane.slots)
            sink = _Lane(self._taker, lane)
            sink.reader = self._streams.reader(self._description, start, sink, statements)
            self._streams.spawn(sink.reader.run(self._follow))
            self._lanes.append(sink)

    def end(self) -> None:
        """Read no more."""
        for lane in self._lanes:
            lane.current = False
            lane.reader.stop()
            self._streams.forget(lane.reader)
        self._lanes.clear()

    @property
    def done(self) -> bool:
        """Whether all have come to their ends."""
        return all(lane.done for lane in self._lanes)

    def wake(self) -> None:
        """There may be something new."""
        for lane in self._lanes:
            lane.reader.wake()

    def retry(self) -> None:
        """The server can be reached again."""
        for lane in self._lanes:
            lane.reader.retry()

    def feed(self) -> None:
        """There is room for more."""
        for lane in self._lanes:
            lane.reader.feed()


class _Lane:
    """Where a reader of some of the slots puts what it has read."""

    reader: Reader

    def __init__(self, taker: Taker, lane: Lane) -> None:
        self._taker = taker
        self._lane = lane
        self.current = True
        self.done = False

    @property
    def has_enough(self) -> bool:
        return self._taker.has_enough

    def on_read(self, rows: Sequence[Any], batch: Batch) -> None:
        if self.current:
            self._taker.on_read(self._lane, rows, batch)

    def deliver_gap(self, gap: Gap) -> None:
        if self.current:
            self._taker.on_gap(gap)

    def end(self, why: Exception) -> None:
        if self.current:
            self.done = True
            if isinstance(why, SubscriptionClosed):
                self._taker.wake()
            else:
                self._taker.on_failed(why)


async def place_at(
    streams: Streams, description: Description[Any], start: Position | Start
) -> tuple[Place, Sequence[Gap]]:
    """Where a reader stands that begins there, and what it is told of at once: `start` may be of another history."""
    sink = _Nowhere()
    reader = streams.reader(description, start if isinstance(start, Position) else None, sink)
    try:
        await reader.begin(at_end=start is END)
        position = reader.position
        return Place(position.covered, position.target, position.last), sink.gaps
    finally:
        reader.stop()
        streams.forget(reader)


class _Nowhere:
    """For a reader whose position alone is wanted."""

    has_enough = False

    def __init__(self) -> None:
        self.gaps: list[Gap] = []

    def on_read(self, rows: Sequence[Any], batch: Batch) -> None:
        pass

    def deliver_gap(self, gap: Gap) -> None:
        self.gaps.append(gap)

    def end(self, why: Exception) -> None:
        pass
