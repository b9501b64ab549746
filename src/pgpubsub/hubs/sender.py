"""Notifications to be sent, one after the other, over the sending connection.

A call is queued while another is in flight, or while there is no connection. It is told its own outcome: sent and
committed, refused, not sent in time, or of unknown fate. Cancelled while it is queued it is not sent; cancelled in
flight it may be. Nothing is ever sent twice. A connection that owes an answer for too long is replaced, whether or not
anybody waits for that answer, since all others wait behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from pgpubsub.errors import ConnectionLost, PubSubError, SendTimeout, again
from pgpubsub.hubs.link import Link

__all__ = ["Sender"]


@dataclass(slots=True, eq=False)
class _Call:
    channel: str
    payload: str
    urgent: bool
    outcome: asyncio.Future[None]


class Sender:
    """See the module. Whoever makes the link calls `pump` when it has connected.

    Args:
        link: to the sending connection.
        timeout: seconds that a call may take, and that an answer may be owed.
    """

    def __init__(self, link: Link[None], timeout: float) -> None:
        self.sent = 0
        """Notifications sent, heartbeats apart."""
        self._link = link
        self._timeout = timeout
        self._deadline: asyncio.TimerHandle | None = None
        self._queue: deque[_Call] = deque()
        self._in_flight: _Call | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    async def notify(self, channel: str, payload: str) -> None:
        """Send one notification; it is committed when this returns.

        Raises:
            SendTimeout: it could not be sent in time, and will not be.
            SendUncertain: the connection broke while it was in flight, or there was no answer in time.
            ServerRefused: the server would not have it.
        """
        call = self._submit(channel, payload)
        try:
            await asyncio.wait({call.outcome}, timeout=self._timeout)
            if not call.outcome.done() and (connection := self._link.connection) is not None:
                connection.read()  # we may be the ones who were late
            if call is self._in_flight:
                await asyncio.wait({call.outcome})  # an answer or the end of the connection will come
            if not call.outcome.done():
                why = self._link.error or "others are still being sent"
                raise SendTimeout(
                    f"NOTIFY {channel!r} could not be sent within {self._timeout:g} s, and will not be: {why}"
                ) from self._link.error
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
                self._deadline = asyncio.get_running_loop().call_later(self._timeout, self._on_owed, call)
                connection.send(call.channel, call.payload, self._on_done)
        if all(call.urgent for call in (*self._queue, *filter(None, [self._in_flight]))):
            self._idle.set()

    async def drain(self) -> None:
        """Wait until everything has been sent, heartbeats apart."""
        await self._idle.wait()

    def fail(self, error: PubSubError) -> None:
        """Nothing more will be sent: tell all who wait."""
        while self._queue:
            call = self._queue.popleft()
            if not call.outcome.done():
                call.outcome.set_exception(again(error))
        self.pump()

    def _submit(self, channel: str, payload: str, *, urgent: bool = False) -> _Call:
        call = _Call(channel, payload, urgent, asyncio.get_running_loop().create_future())
        if urgent:
            self._queue.appendleft(call)
        else:
            self._queue.append(call)
            self._idle.clear()
        self.pump()
        return call

    def _on_done(self, error: PubSubError | None) -> None:
        call, self._in_flight = self._in_flight, None
        assert call is not None
        assert self._deadline is not None
        self._deadline.cancel()
        if not call.outcome.done():
            if error is None:
                call.outcome.set_result(None)
            else:
                call.outcome.set_exception(error)
        self.pump()

    def lose_beat(self, error: PubSubError) -> None:
        """The listening connection turned out to be dead: so is this one, if a heartbeat is in flight on it."""
        if self._in_flight is not None and self._in_flight.urgent:
            self._link.lose(error)

    def _on_owed(self, call: _Call) -> None:
        """The answer to `call` was owed up to now."""
        if (connection := self._link.connection) is not None:
            connection.read()
        if call is self._in_flight:
            self._link.lose(ConnectionLost(f"no answer to NOTIFY {call.channel!r} within {self._timeout:g} s"))

    def _withdraw(self, call: _Call) -> None:
        """Nobody waits for `call` any more."""
        if call.outcome.done() and not call.outcome.cancelled():
            call.outcome.exception()  # it is known
        call.outcome.cancel()
        if call is not self._in_flight and call in self._queue:
            self._queue.remove(call)
        self.pump()
