"""Removes what nobody takes: messages and memberships that have expired, and the dead rows that messages leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pgpubsub.contrib.channels.inboxes import Inboxes
from pgpubsub.contrib.channels.line import Line
from pgpubsub.contrib.channels.statements import Statements
from pgpubsub.errors import PubSubError
from pgpubsub.logs import EventLog

__all__ = ["Tidier"]

logger = EventLog("channels")

SWEEP = 30.0
"""Seconds between two looks at what has expired, at most."""

VACUUM = 5000
"""Messages that this process takes before it vacuums their table."""


class Tidier:
    """See the module.

    Args:
        line: the connection.
        statements: on the tables.
        inboxes: of the process.
        expiry: seconds that a message is kept.
        also: what else is to be done now and then.
    """

    def __init__(
        self,
        line: Line,
        statements: Statements,
        inboxes: Inboxes,
        expiry: float,
        also: Callable[[], Awaitable[None]],
    ) -> None:
        self._line = line
        self._statements = statements
        self._inboxes = inboxes
        self._seconds = min(SWEEP, expiry)
        self._also = also
        self._taken = 0  # since the table was vacuumed
        self._much_taken = asyncio.Event()

    def on_taken(self, number: int) -> None:
        """So many messages were taken out of the table."""
        self._taken += number
        if self._taken >= VACUUM:
            self._much_taken.set()

    async def sweep(self) -> None:
        """Remove what has expired, and say so, until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            unheard = list(self._inboxes.sweep().items())
            try:
                unheard += await self._line.run(self._statements.sweep, [], repeatable=True)
            except PubSubError as error:
                logger.warning("sweep_failed", "what has expired could not be removed: %(error)s", error=error)
            for channel, number in unheard:
                logger.warning(
                    "messages_expired",
                    "%(count)d messages on %(channel)s expired: nobody received them",
                    count=number,
                    channel=channel,
                )
            await self._also()

    async def vacuum(self) -> None:
        """Remove dead rows, through which each look at the table has to go, until cancelled. The server's own vacuum
        comes once a minute at most: at thousands of messages a second, that is too late."""
        while True:
            await self._much_taken.wait()
            self._much_taken.clear()
            self._taken = 0
            try:
                ((permitted,),) = await self._line.run(self._statements.may_vacuum, [], repeatable=True)
                if not permitted:  # it is the owner's right
                    return
                await self._line.run(self._statements.vacuum, [], repeatable=True)
            except PubSubError as error:
                logger.warning("vacuum_failed", "the table of messages could not be vacuumed: %(error)s", error=error)
