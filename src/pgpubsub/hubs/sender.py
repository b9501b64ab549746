"""Sends notifications over the sending connection, as `core.sender` decides.

A call is told its own outcome: sent and committed, refused, not sent in time, or of unknown fate. A connection that
owes an answer for too long is replaced, whether or not anybody waits for that answer, since all others wait behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

from pgpubsub.core import sender
from pgpubsub.core.frames import Message
from pgpubsub.errors import ConnectionLost, PubSubError
from pgpubsub.hubs.link import Link
from pgpubsub.randomness import new_message_id

__all__ = ["Sender"]


class _Call(sender.Call):
    """A call for which a task waits."""

    __slots__ = ("outcome",)

    def __init__(self, messages: Sequence[Message], *, urgent: bool = False) -> None:
        super().__init__(messages, urgent=urgent)
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

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


class Sender:
    """See the module. Whoever makes the link calls `pump` when it has connected.

    Args:
        link: to the sending connection.
        timeout: seconds that a call may wait, and that an answer may be owed.
        on_told: see `core.sender`.
    """

    def __init__(
        self,
        link: Link[None],
        timeout: float,
        on_told: Callable[[sender.Call, PubSubError | None], None] | None = None,
    ) -> None:
        self._link = link
        self._timeout = timeout
        self._core = sender.Sender(timeout, new_message_id, on_told)
        self._owed_from = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._drained: asyncio.Event | None = None

    @property
    def sent(self) -> int:
        """Notifications sent, heartbeats apart."""
        return self._core.sent

    async def send(self, messages: Sequence[Message]) -> None:
        """Send notifications in one transaction; it is committed when this returns.

        Raises:
            SendTimeout: they could not be sent in time, and will not be.
            SendUncertain: the connection broke while they were in flight, or there was no answer in time.
            ServerRefused: the server would not have them.
        """
        call = _Call(messages)
        self.submit(call)
        try:
            await call.outcome
        except BaseException:
            self._leave(call)
            raise

    async def beat(self, channel: str, payload: str, timeout: float) -> bool:
        """Send a heartbeat, before everything that is queued; say whether it was committed within `timeout` seconds.
        One that was not is left to its fate: the server may only be busy."""
        call = _Call([(channel, payload)], urgent=True)
        self.submit(call)
        try:
            await asyncio.wait({call.outcome}, timeout=timeout)
            if not call.outcome.done() and (connection := self._link.connection) is not None:
                connection.read()  # we may be the ones who were late
            return call.outcome.done() and call.outcome.exception() is None
        finally:
            self._leave(call)

    def submit(self, call: sender.Call) -> None:
        """Have `call` sent, and told what became of it."""
        self._core.submit(call, monotonic())
        if self._core.in_flight is None or self._alarm is None:
            self.pump()

    def withdraw(self, call: sender.Call) -> None:
        """Nobody waits for `call` any more."""
        if not call.told:
            self._core.withdraw(call)
            if self._drained is not None:
                self.pump()

    def pump(self) -> None:
        """Send what can be sent now."""
        core, connection = self._core, self._link.connection
        if connection is not None and (batch := core.next_batch(connection.room)) is not None:
            self._owed_from = monotonic()
            batches = [batch.messages]
            while len(batches) < connection.volley:
                if (batch := core.next_batch(connection.room, behind=True)) is None:
                    break
                batches.append(batch.messages)
            connection.send(batches, self._on_done)
        if self._alarm is None:
            self._set_alarm()
        if self._drained is not None and core.idle:
            self._drained.set()

    async def drain(self) -> None:
        """Wait until everything has been sent, heartbeats apart."""
        self._drained = asyncio.Event()
        self.pump()
        await self._drained.wait()

    def fail(self, error: PubSubError) -> None:
        """Nothing more will be sent: tell all who wait."""
        self._core.fail(error)
        self.pump()
        if self._alarm is not None:
            self._alarm.cancel()

    def lose_beat(self, error: PubSubError) -> None:
        """The listening connection turned out to be dead: so is this one, if a heartbeat is in flight on it."""
        batch = self._core.in_flight
        if batch is not None and batch.calls[0].urgent:
            self._link.lose(error)

    def _leave(self, call: _Call) -> None:
        """The task that waited for `call` goes on."""
        self.withdraw(call)
        if call.outcome.done() and not call.outcome.cancelled():
            call.outcome.exception()  # it is known
        call.outcome.cancel()

    def _on_done(self, error: PubSubError | None) -> None:
        if error is None:
            self._core.on_sent()
        elif isinstance(error, ConnectionLost):
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
