"""Sends notifications over the sending connection, as `core.sender` decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

from pgpubsub.core import sender
from pgpubsub.core.frames import Message, pack
from pgpubsub.core.grouping import Call
from pgpubsub.drivers.interface import LoopConnection
from pgpubsub.errors import PubSubError
from pgpubsub.hubs.link import Link
from pgpubsub.hubs.outbox import Awaited, Outbox
from pgpubsub.randomness import new_message_id

__all__ = ["Sender"]


class _Call(Awaited[Message], sender.Call):
    __slots__ = ()


class Sender(Outbox[Message]):
    """See the module, and `Outbox` for the arguments. `on_told`: see `core.grouping`."""

    def __init__(
        self,
        link: Link[None],
        timeout: float,
        on_told: Callable[[Call[Message], PubSubError | None], None] | None = None,
    ) -> None:
        super().__init__(link, timeout, sender.Sender(timeout, on_told))

    async def send(self, messages: Sequence[Message]) -> None:
        """Send notifications in one transaction; it is committed when this returns. Raises as `wait_for`."""
        await self.wait_for(_Call(messages))

    async def beat(self, channel: str, payload: str, timeout: float) -> bool:
        """Send a heartbeat, before everything that is queued; say whether it was committed within `timeout` seconds.
        One that was not is left to its fate: the server may only be busy."""
        call = _Call([(channel, payload)], urgent=True)
        call.expect()
        self.submit(call)
        try:
            await asyncio.wait({call.outcome}, timeout=timeout)
            if not call.outcome.done() and (connection := self._link.connection) is not None:
                connection.read()  # we may be the ones who were late
            return call.outcome.done() and call.outcome.exception() is None
        finally:
            self.leave(call)

    def lose_beat(self, error: PubSubError) -> None:
        """The listening connection turned out to be dead: so is this one, if a heartbeat is in flight on it."""
        batch = self._core.in_flight
        if batch is not None and batch.calls[0].urgent:
            self._link.lose(error)

    def _transmit(self, connection: LoopConnection) -> None:
        if (batch := self._core.next_batch()) is None:
            return
        self._owed_from = monotonic()
        batches = [pack(batch.items, new_message_id, connection.room)]
        while len(batches) < connection.volley:
            if (batch := self._core.next_batch(behind=True)) is None:
                break
            batches.append(pack(batch.items, new_message_id, connection.room))
        connection.send(batches, self._on_done)

    def _on_done(self, error: PubSubError | None) -> None:
        if error is not None:
            self._on_failed(error)
        else:
            self._core.on_sent()
            self.pump()
