"""Notifications to be sent, one after the other, over the sending connection.

A call is queued while another is in flight, or while there is no connection. It is told its own outcome: sent and
committed, refused, not sent in time, or of unknown fate. Cancelled while it is queued it is not sent; cancelled in
flight it may be. Nothing is ever sent twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from pgpubsub.aio.link import Link
from pgpubsub.errors import PubSubError, SendTimeout, SendUncertain, again

__all__ = ["Sender"]


@dataclass(slots=True, eq=False)
class _Call:
    channel: str
    payload: str
    outcome: asyncio.Future[None]


class Sender:
    """See the module. Whoever makes the link calls `pump` when it has connected."""

    def __init__(self, link: Link[None]) -> None:
        self.sent = 0
        """Notifications sent, heartbeats apart."""
        self._link = link
        self._queue: deque[_Call] = deque()
        self._in_flight: _Call | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    async def notify(self, channel: str, payload: str, timeout: float) -> None:
        """Send one notification; it is committed when this returns.

        Raises:
            SendTimeout: it could not be sent within `timeout` seconds, and will not be.
            SendUncertain: the connection broke while it was in flight, or there was no answer in time.
            ServerRefused: the server would not have it.
        """
        call = self._submit(channel, payload)
        try:
            await asyncio.wait({call.outcome}, timeout=timeout)
            if not call.outcome.done() and (connection := self._link.connection) is not None:
                connection.read()  # we may be the ones who were late
            if not call.outcome.done():
                self._raise_late(call, timeout)
            call.outcome.result()
            self.sent += 1
        finally:
            self._withdraw(call)

    async def beat(self, channel: str, payload: str, timeout: float) -> bool:
        """Send a heartbeat, before everything that is queued; say whether it was committed within `timeout` seconds.
        One that was not is left to its fate: the server may only be busy."""
        call = self._submit(channel, payload, urgent=True)
        try:
            await asyncio.wait({call.outcome}, timeout=timeout)
            if not call.outcome.done() and (connection := self._link.connection) is not None:
                connection.read()
            return call.outcome.done() and call.outcome.exception() is None
        finally:
            self._withdraw(call)

    def pump(self) -> None:
        """Send the next one, if there is one and it can be sent now."""
        while self._queue and self._in_flight is None and (connection := self._link.connection) is not None:
            call = self._queue.popleft()
            if not call.outcome.done():
                self._in_flight = call
                connection.send(call.channel, call.payload, self._on_done)
        if not self._queue and self._in_flight is None:
            self._idle.set()

    async def drain(self) -> None:
        """Wait until everything has been sent."""
        await self._idle.wait()

    def fail(self, error: PubSubError) -> None:
        """Nothing more will be sent: tell all who wait."""
        while self._queue:
            call = self._queue.popleft()
            if not call.outcome.done():
                call.outcome.set_exception(again(error))
        self.pump()

    def _submit(self, channel: str, payload: str, *, urgent: bool = False) -> _Call:
        call = _Call(channel, payload, asyncio.get_running_loop().create_future())
        self._idle.clear()
        if urgent:
            self._queue.appendleft(call)
        else:
            self._queue.append(call)
        self.pump()
        return call

    def _on_done(self, error: PubSubError | None) -> None:
        call, self._in_flight = self._in_flight, None
        assert call is not None
        if not call.outcome.done():
            if error is None:
                call.outcome.set_result(None)
            else:
                call.outcome.set_exception(error)
        self.pump()

    def _raise_late(self, call: _Call, timeout: float) -> None:
        what = f"NOTIFY {call.channel!r}"
        if call is self._in_flight:
            error = SendUncertain(
                f"{what} was sent, but not acknowledged within {timeout:g} s: it may or may not be delivered, and is"
                " not repeated"
            )
            self._link.lose(error)  # nobody can tell what it is doing
            raise error
        why = self._link.error if self._link.connection is None else "others are still being sent"
        raise SendTimeout(
            f"{what} could not be sent within {timeout:g} s, and will not be: {why}"
        ) from self._link.error

    def _withdraw(self, call: _Call) -> None:
        """Nobody waits for `call` any more."""
        if call.outcome.done() and not call.outcome.cancelled():
            call.outcome.exception()  # it is known
        call.outcome.cancel()
        if call is not self._in_flight and call in self._queue:
            self._queue.remove(call)
        self.pump()
