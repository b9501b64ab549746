"""Looks whether streams have something new for readers that nobody has told: hints may be lost, or not sent at all.

One statement asks for a thousand readers, however many streams they read, so that a poll a second costs little.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Protocol

from pgpubsub.core.position import Position
from pgpubsub.errors import ConnectionLost, PubSubError
from pgpubsub.logs import EventLog
from pgpubsub.randomness import new_delays
from pgpubsub.streams.source import Source
from pgpubsub.streams.statements import Statements, as_array

__all__ = ["Watch"]

logger = EventLog("streams")

AT_ONCE = 1000
"""Readers for which one statement asks."""


class Watched(Protocol):
    """A reader that waits."""

    @property
    def position(self) -> Position:
        """Where it stands."""

    def wake(self) -> None:
        """There may be something new."""

    async def until_woken(self) -> None:
        """Wait for that."""


class Watch:
    """See the module.

    Args:
        source: of the connections that the readers use.
        statements: for their schema.
        interval: seconds from one look to the next.
    """

    def __init__(self, source: Source, statements: Statements, interval: float) -> None:
        self._source = source
        self._statements = statements
        self.interval = interval
        """Seconds from one look to the next."""
        self._waiting: dict[Watched, float] = {}  # and when each is due, the earliest first
        self.task: asyncio.Task[None] | None = None
        """That looks, as long as anybody waits."""
        self._ended = False

    async def wait(self, reader: Watched) -> None:
        """Wait until there may be something for `reader`."""
        self._waiting[reader] = monotonic() + self.interval
        if (self.task is None or self.task.done()) and not self._ended:
            self.task = asyncio.get_running_loop().create_task(self._run())
        try:
            await reader.until_woken()
        finally:
            self._waiting.pop(reader, None)

    def end(self) -> None:
        """Look no more."""
        self._ended = True
        if self.task is not None:
            self.task.cancel()

    async def _run(self) -> None:
        delays = new_delays()
        while self._waiting and not self._ended:
            await asyncio.sleep(max(0.0, next(iter(self._waiting.values())) - monotonic()))
            soon = monotonic() + self.interval / 10
            due = [reader for reader, time in self._waiting.items() if time <= soon]
            try:
                for start in range(0, len(due), AT_ONCE):
                    await self._look(due[start : start + AT_ONCE])
            except ConnectionLost as error:
                logger.warning("looking_failed", "cannot look for entries: %(error)s", error=error)
                await asyncio.sleep(max(0.02, next(delays)))
            except PubSubError:  # they will find out, and tell
                for reader in due:
                    reader.wake()
            else:
                delays = new_delays()

    async def _look(self, readers: Sequence[Watched]) -> None:
        async with self._source.session(self._statements) as session:
            home = await session.home(self._statements)
            if home.in_recovery:  # where each has to find out for itself
                found = list(range(1, len(readers) + 1))
            else:
                positions = [reader.position for reader in readers]
                parameters = {
                    "streams": as_array([position.stream for position in positions]),
                    "belows": as_array([position.covered.below for position in positions]),
                    "opens": as_array([f'"{as_array(position.covered.open)}"' for position in positions]),
                }
                found = [number for (number,) in await session.rows(self._statements.watch, parameters)]
                # Another history was restored in place of theirs, without an entry that is new to them perhaps.
                found += [number for number, position in enumerate(positions, 1) if position.birth != home.birth]
        next_time = monotonic() + self.interval
        for reader in readers:
            if reader in self._waiting:  # behind the others
                del self._waiting[reader]
                self._waiting[reader] = next_time
        for number in found:
            readers[number - 1].wake()
