"""Carries out what `core.grouping` decides, over one connection.

A call is told its own outcome: sent and committed, refused, not sent in time, or of unknown fate. A connection that
owes an answer for too long is replaced, whether or not anybody waits for that answer, since all others wait behind it.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Generic, TypeVar

from pgpubsub.core.grouping import Call, Grouping
from pgpubsub.drivers.interface import LoopConnection
from pgpubsub.errors import ConnectionLost, PubSubError
from pgpubsub.hubs.link import Link

__all__ = ["Awaited", "Outbox"]

Item = TypeVar("Item")


class Awaited(Call[Item]):
    """A call for which a task waits."""

    __slots__ = ("outcome",)

    outcome: asyncio.Future[None]

    def expect(self) -> None:
        """A task is about to wait."""
        self.outcome = asyncio.get_running_loop().create_future()

    @property
    def called_off(self) -> bool:
        return self.told or self.outcome.cancelled()  # its task comes to `withdraw` in a moment

    def tell(self, error: PubSubError | None) -> None:
        if self.outcome.cancelled():
            return
        if error is None:
            self.outcome.set_result(None)
        else:
            self.outcome.set_exception(error)


class Outbox(Generic[Item]):
    """See the module. Whoever makes the link calls `pump` when it has connected.

    Args:
        link: to the connection.
        timeout: seconds that a call may wait, and that an answer may be owed.
        core: makes the decisions.
    """

    def __init__(self, link: Link[None], timeout: float, core: Grouping[Item]) -> None:
        self._link = link
        self._timeout = timeout
        self._core = core
        self._owed_from = 0.0
        self._pump_due = False
        self._alarm: asyncio.TimerHandle | None = None
        self._drained: asyncio.Event | None = None

    @property
    def sent(self) -> int:
        """Items sent, urgent ones apart."""
        return self._core.sent

    def submit(self, call: Call[Item]) -> None:
        """Have `call` sent, and told what became of it."""
        self._core.submit(call, monotonic())
        if not self._pump_due and (self._core.in_flight is None or self._alarm is None):
            self._pump_due = True  # soon, so that it goes out with those that come in the same turn of the loop
            asyncio.get_running_loop().call_soon(self._pump_soon)

    def _pump_soon(self) -> None:
        self._pump_due = False
        self.pump()

    def withdraw(self, call: Call[Item]) -> None:
        """Nobody waits for `call` any more."""
        if not call.told:
            self._core.withdraw(call)
            if self._drained is not None:
                self.pump()

    async def wait_for(self, call: Awaited[Item]) -> None:
        """Have `call` sent, and wait for the outcome.

        Raises:
            SendTimeout: it could not be sent in time, and will not be.
            SendUncertain: the connection broke while it was in flight, or there was no answer in time.
            ServerRefused: the server would not have it.
        """
        call.expect()
        self.submit(call)
        try:
            await call.outcome
        except BaseException:
            self.leave(call)
            raise

    def leave(self, call: Awaited[Item]) -> None:
        """The task that waited for `call` goes on."""
        self.withdraw(call)
        if call.outcome.done() and not call.outcome.cancelled():
            call.outcome.exception()  # it is known
        call.outcome.cancel()

    def pump(self) -> None:
        """Send what can be sent now."""
        core, connection = self._core, self._link.connection
        if connection is not None:
            self._transmit(connection)
        if self._alarm is None:
            self._set_alarm()
        if self._drained is not None and core.idle:
            self._drained.set()

    async def drain(self) -> None:
        """Wait until everything has been sent, urgent calls apart."""
        self._drained = asyncio.Event()
        self.pump()
        await self._drained.wait()

    def fail(self, error: PubSubError) -> None:
        """Nothing more will be sent: tell all who wait."""
        self._core.fail(error)
        self.pump()
        if self._alarm is not None:
            self._alarm.cancel()

    def _transmit(self, connection: LoopConnection) -> None:
        """Ask the core for the next batch. If there is one, note when in `_owed_from`, and have it sent."""
        raise NotImplementedError

    def _on_failed(self, error: PubSubError) -> None:
        if isinstance(error, ConnectionLost):
            self._core.on_lost(error)
        else:
            self._core.on_refused(error)
        self.pump()

    # -- what takes too long

    def _set_alarm(self) -> None:
        """One timer for all: it may ring too early, and is then set again."""
        times = [time for time in (self._core.next_expiry, self._owed_until) if time is not None]
        if times:
            seconds = max(0.0, min(times) - monotonic())
            self._alarm = asyncio.get_running_loop().call_later(seconds, self._on_alarm)

    @property
    def _owed_until(self) -> float | None:
        return None if self._core.in_flight is None else self._owed_from + self._timeout

    def _on_alarm(self) -> None:
        if (connection := self._link.connection) is not None:
            connection.read()  # we may be the ones who were late
        now = monotonic()
        otherwise = "others are still being sent" if self._link.connection is not None else "still connecting"
        self._core.expire(now, self._link.error or otherwise, self._link.error)
        batch, until = self._core.in_flight, self._owed_until
        if batch is not None and until is not None and until <= now:
            self._link.lose(ConnectionLost(f"no answer to {batch} within {self._timeout:g} s"))
        self._alarm = None
        self.pump()
