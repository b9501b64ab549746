"""Hubs without a database, for tests of programs that use hubs.

What decides is the very code of the real hubs: subscriptions, buffers, gaps, reconnection, heartbeats. Only their
connections lead to an object in memory instead of to PostgreSQL, so a test can take the server away and give it
back in microseconds, and see what its program makes of the gap.

It has no transactions and knows no SQL: what is sent is delivered, to all hubs of the same server.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from pgpubsub.aio import AsyncHub
from pgpubsub.channel import Channel, checked_message
from pgpubsub.core.frames import MAX_PAYLOAD, Message, pack
from pgpubsub.core.headers import Headers
from pgpubsub.core.registry import Changes
from pgpubsub.core.sql import PAYLOAD_LIMIT
from pgpubsub.drivers.arrays import Question
from pgpubsub.drivers.interface import Answer
from pgpubsub.drivers.psycopg3_wire import IN_ONE_TURN
from pgpubsub.errors import ConnectionFailed, ConnectionLost, PubSubError
from pgpubsub.events import Notify
from pgpubsub.hubs.engine import Engine
from pgpubsub.randomness import new_message_id
from pgpubsub.threads.hub import Hub

__all__ = ["MemoryServer"]


class MemoryServer:
    """Stands in for a PostgreSQL server. May be used from any thread.

    >>> from pgpubsub.testing import MemoryServer
    >>> server = MemoryServer()
    >>> with server.hub() as hub, hub.subscribe("orders") as events:
    ...     hub.notify("orders", "17")
    ...     print(events.get(timeout=5).payload)
    ...     server.restart()
    ...     print(events.get(timeout=5).reason)
    17
    connection_lost
    """

    def __init__(self) -> None:
        self._running = True
        self._connections: list[_MemoryConnection] = []
        self._pids = itertools.count(1001)

    def hub(self, **options: Any) -> Hub:
        """A `Hub` of this server. `options` are `Hub`'s, apart from those that concern the connection."""
        return _MemoryHub(self, options)

    def async_hub(self, **options: Any) -> AsyncHub:
        """An `AsyncHub` of this server."""
        return _MemoryAsyncHub(self, options)

    def notify(self, channel: str | Channel[Any], payload: Any = "", *, headers: Headers | None = None) -> None:
        """Send as somebody else would, who is not one of the hubs."""
        self._deliver(1000, pack([checked_message(channel, payload, MAX_PAYLOAD, headers)], new_message_id))

    def stop(self) -> None:
        """End all connections, and refuse new ones."""
        self._running = False
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.lose("the server was stopped")

    def start(self) -> None:
        """Accept connections again. Hubs come back by themselves, after a delay that grows with their failures."""
        self._running = True

    def restart(self) -> None:
        """Stop and start: hubs notice, reconnect at once, and report a gap."""
        self.stop()
        self.start()

    def deafen(self) -> None:
        """From now on deliver nothing to the connections that listen, and do not end them: what a half-open socket
        looks like. A hub notices by its heartbeat, reconnects, and reports a gap."""
        for connection in self._connections:
            connection.deaf = bool(connection.channels)

    def _deliver(self, pid: int, messages: Sequence[Message]) -> None:
        events = [Notify(pid, *message) for message in messages]
        for connection in tuple(self._connections):
            heard = [event for event in events if event.channel in connection.channels]
            if heard and not connection.deaf:
                connection.post(connection.take_in, heard)

    async def _connect(self) -> _MemoryConnection:
        await asyncio.sleep(0)
        if not self._running:
            raise ConnectionFailed("cannot connect to PostgreSQL: the server in memory was stopped")
        connection = _MemoryConnection(self, next(self._pids))
        self._connections.append(connection)
        return connection


class _MemoryConnection:
    """See `drivers.interface.LoopConnection`."""

    pooled = False
    room = PAYLOAD_LIMIT
    volley = 1

    def __init__(self, server: MemoryServer, pid: int) -> None:
        self.server_pid = pid
        self.channels: frozenset[str] = frozenset()
        self.deaf = False
        self._arrived: deque[Notify] = deque()
        self._on_events: Callable[[list[Notify]], None] = lambda events: None
        self._on_lost: Callable[[ConnectionLost], None] = lambda error: None
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._closed = False

    def watch(self, on_events: Callable[[list[Notify]], None], on_lost: Callable[[ConnectionLost], None]) -> None:
        self._on_events, self._on_lost = on_events, on_lost

    def read(self) -> None:
        self._hand_out(None)

    async def apply(self, changes: Changes, timeout: float, on_committed: Callable[[], None]) -> None:
        await self.ask(timeout)
        self.channels = (self.channels - set(changes.unlisten)) | set(changes.listen)
        on_committed()

    async def ask(self, timeout: float) -> None:
        await asyncio.sleep(timeout if self.deaf else 0)
        if self._closed or self.deaf:
            raise ConnectionLost("the connection to the server in memory is lost")

    def send(self, batches: Sequence[Sequence[Message]], on_done: Callable[[PubSubError | None], None]) -> None:
        for messages in batches:
            error = None
            if self in self._server._connections:
                self._server._deliver(self.server_pid, messages)
            else:
                error = ConnectionLost("the connection to the server in memory is lost")
            self._loop.call_soon(on_done, error)

    def answer(self, questions: Sequence[Question], on_done: Callable[[Answer | PubSubError], None]) -> None:
        raise AssertionError("there are no streams without a database")

    def close(self, why: PubSubError | None = None) -> None:
        self._closed = True
        if self in self._server._connections:
            self._server._connections.remove(self)

    def disown(self) -> None:
        self._closed = True

    def lose(self, why: str) -> None:
        """The server ends it."""
        self.post(self._end, ConnectionLost(f"the connection to the server in memory is lost: {why}"))

    def post(self, function: Callable[[Any], object], value: Any) -> None:
        """Have something done in the loop of whoever opened it, unless it is closed by then."""
        with suppress(RuntimeError):  # that loop has ended
            self._loop.call_soon_threadsafe(lambda: None if self._closed else function(value))

    def take_in(self, events: list[Notify]) -> None:
        """In its loop: this has arrived, and is handed out as from a socket, so much in each turn."""
        at_once = not self._arrived
        self._arrived += events
        if at_once:
            self._hand_out(IN_ONE_TURN)

    def _hand_out(self, limit: int | None) -> None:
        events = list(islice(self._arrived, limit))
        for _ in events:
            self._arrived.popleft()
        if limit is not None and self._arrived:
            self._loop.call_soon(self._hand_out, limit)
        if events and not self._closed:
            self._on_events(events)

    def _end(self, error: ConnectionLost) -> None:
        self._hand_out(None)
        self._closed = True
        self._on_lost(error)


class _MemoryHub(Hub):
    def __init__(self, server: MemoryServer, options: dict[str, Any]) -> None:
        self._begin(Engine(server._connect, server._connect, **options), None)


class _MemoryAsyncHub(AsyncHub):
    def __init__(self, server: MemoryServer, options: dict[str, Any]) -> None:
        self._begin(Engine(server._connect, server._connect, **options), None)
