"""One connection after another, kept alive as `core.session` decides.

A hub has two: one that listens, and one that sends. Here is what they have in common: connecting, noticing a loss,
waiting, stopping. What else the session wants done is the business of whoever has the link.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic

from pgpubsub.core.registry import Owner
from pgpubsub.core.session import Connect, Session, Step, Stop, Wait
from pgpubsub.drivers.interface import LoopConnection
from pgpubsub.errors import ConnectionFailed, GaveUp, PubSubError, ServerInRecovery, UnusableDeployment
from pgpubsub.events import GapReason, Notify
from pgpubsub.logs import EventLog

__all__ = ["Dial", "Link"]

logger = EventLog("connection")

Dial = Callable[[], Awaitable[LoopConnection]]


async def _nothing_else(step: Step, connection: LoopConnection) -> None:
    raise AssertionError(f"a session without channels or heartbeat wants {step}")


class Link(Generic[Owner]):
    """See the module.

    Args:
        name: for the log, such as "listening".
        session: makes the decisions.
        dial: opens a connection.
        on_events: gets what arrives.
        refuses_standby: whether a session that was never trusted ends where it meets a standby. Otherwise that is
            waited for, as it is after a failover.
        act: carries out a step that is not common to all links.
        on_change: called when a connection was made, could not be made or was lost.
    """

    def __init__(
        self,
        name: str,
        session: Session[Owner],
        dial: Dial,
        *,
        on_events: Callable[[list[Notify]], None] = lambda events: None,
        refuses_standby: bool = True,
        act: Callable[[Step, LoopConnection], Awaitable[None]] = _nothing_else,
        on_change: Callable[[str, str], None] = lambda name, detail: None,
    ) -> None:
        self.session = session
        self.error: PubSubError | None = None
        """Why there is no connection, or none that works."""
        self.stopped = False
        """Whether the session has come to its end."""
        self._name = name
        self._dial = dial
        self._on_events = on_events
        self._refuses_standby = refuses_standby
        self._act = act
        self._on_change = on_change
        self._connection: LoopConnection | None = None
        self._woken = asyncio.Event()

    @property
    def connection(self) -> LoopConnection | None:
        """The connection, while there is one."""
        return self._connection if self.session.up else None

    def wake(self) -> None:
        """Ask the session anew: something has changed."""
        self._woken.set()

    def lose(
        self, error: PubSubError, reason: GapReason = GapReason.CONNECTION_LOST, *, hopeless: bool = False
    ) -> None:
        """The present connection is of no more use."""
        if self.connection is None:
            return
        self.session.on_lost(self.session.number, monotonic(), str(error), reason=reason, hopeless=hopeless)
        self.let_go(error)

    def let_go(self, error: PubSubError) -> None:
        """The session has declared the present connection lost."""
        assert self._connection is not None
        self.error = error
        self._connection.close(error)
        logger.warning("connection_lost", "%(link)s connection lost: %(error)s", link=self._name, error=error)
        self._on_change("lost", str(error))
        self.wake()

    async def run(self) -> None:
        """Take steps until the session stops. Cancelled, it closes the connection."""
        try:
            while True:
                self._woken.clear()
                step = self.session.next_step(monotonic())
                if isinstance(step, Stop):
                    break
                if isinstance(step, Wait):
                    await self._wait(step.until)
                elif isinstance(step, Connect):
                    await self._connect()
                else:
                    assert self._connection is not None
                    await self._act(step, self._connection)
            if step.gave_up:
                cause, self.error = self.error, GaveUp(step.why)
                self.error.__cause__ = cause
        finally:
            self.stopped = True
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
        logger.error(
            "connection_given_up", "%(link)s connection given up: %(error)s", link=self._name, error=self.error
        )
        self._on_change("stopped", str(self.error))

    async def _wait(self, until: float | None) -> None:
        if until is None:
            await self._woken.wait()
            return
        try:
            async with asyncio.timeout(max(0.0, until - monotonic())):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _connect(self) -> None:
        give_up_at = self.session.give_up_at
        try:
            async with asyncio.timeout(None if give_up_at is None else max(0.0, give_up_at - monotonic())):
                connection = await self._dial()
        except (PubSubError, TimeoutError) as failure:
            error = failure if isinstance(failure, PubSubError) else self.error or ConnectionFailed("no answer in time")
            self.error = error
            hopeless = isinstance(error, UnusableDeployment) or (
                self._refuses_standby and isinstance(error, ServerInRecovery)
            )
            self.session.on_connect_failed(monotonic(), str(error), hopeless=hopeless)
            logger.warning("connect_failed", "%(link)s connection failed: %(error)s", link=self._name, error=error)
            self._on_change("connect_failed", str(error))
        else:
            self._connection = connection
            self.session.on_connected(monotonic())
            if self.session.trusted:
                self.error = None
            connection.watch(self._on_events, self.lose)
            self._on_change("connected", "")
