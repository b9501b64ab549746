"""Removes entries that streams need not keep any more, in the background of a hub that uses streams.

One statement asks which streams that are, and claims the round: other hubs that ask within the same interval are told
of none, and ask less and less often. The rest is one batch after the other, with pauses, in transactions of their own,
so that it is in nobody's way. Whatever goes wrong is logged once, and tried again: the hub needs nothing of it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from pgpubsub.errors import PubSubError, ServerRefused
from pgpubsub.logs import EventLog
from pgpubsub.randomness import spread
from pgpubsub.streams.session import Session
from pgpubsub.streams.source import Source
from pgpubsub.streams.statements import Statements

__all__ = ["Trimmer"]

logger = EventLog("streams")

INTERVAL = 30.0
"""Seconds between two rounds, about."""

INSUFFICIENT_PRIVILEGE = "42501"

LONGEST = 8
"""Intervals after which a hub for which there was nothing to do asks again."""

BATCH = 1000
"""Entries that are removed at a time."""

PAUSE = 0.05
"""Seconds between two batches."""


class Trimmer:
    """See the module. It begins at once.

    Args:
        source: of connections.
        statements: for the schema.
    """

    def __init__(self, source: Source, statements: Statements) -> None:
        self._source = source
        self._statements = statements
        self._stopped = asyncio.Event()
        self._told: str | None = None
        self.task = asyncio.get_running_loop().create_task(self._run())
        """Which it is done in."""

    def stop(self) -> None:
        """Trim no more. A statement under way is left to come to its end."""
        self._stopped.set()

    async def _run(self) -> None:
        intervals = 1
        while not await self._stops_within(spread(2 * INTERVAL) * 2 / 3 * intervals):
            done = await self._try_round()
            intervals = 1 if done else min(2 * intervals, LONGEST)

    async def _try_round(self) -> bool:
        try:
            done = await self._round()
        except ServerRefused as error:
            self._tell(error, logging.INFO if error.sqlstate == INSUFFICIENT_PRIVILEGE else logging.WARNING)
        except PubSubError as error:
            self._tell(error, logging.WARNING)
        except Exception as error:
            self._tell(error, logging.ERROR)
        else:
            self._told = None
            return done
        return False

    async def _round(self) -> bool:
        """Whether it was for us to trim."""
        async with self._source.own(self._statements) as session:
            home = await session.home(self._statements)
            if home.in_recovery:
                return False
            streams = await session.rows(self._statements.streams_to_trim, {"pause": str(INTERVAL * 0.9)})
            for (stream,) in streams:
                await self._trim(session, stream)
            return bool(streams)

    async def _trim(self, session: Session, stream: int) -> None:
        parameters = {"stream": str(stream), "most": str(BATCH)}
        while not self._stopped.is_set():
            (count,) = await session.first(self._statements.trim, parameters)
            if count == 0:
                return
            await self._stops_within(PAUSE)

    async def _stops_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        return self._stopped.is_set()

    def _tell(self, error: Exception, level: int) -> None:
        """Log it, unless it was the last thing that was."""
        if self._told != type(error).__name__ and not self._stopped.is_set():
            logger.log(
                level,
                "trimming_failed",
                "streams in schema %(schema)r cannot be trimmed: %(error)s",
                schema=self._statements.schema,
                error=error,
            )
        self._told = type(error).__name__
