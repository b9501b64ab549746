"""One subscription, and what it is compared with, each used as its own manual has it.

Where the burst is longer than a subscription's buffer by default, this is asked for a larger one: what is measured
is how fast it receives, and not when it would rather report a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from psycopg.conninfo import conninfo_to_dict

import pgpubsub
from bench.contestants import Arrival
from bench.on_loop import LoopReceiver, new_uvloop
from bench.raw_loops import Asyncpg, asyncpg_socket, connect_asyncpg

if TYPE_CHECKING:
    from asyncpg_listen import NotificationOrTimeout

__all__ = ["AsyncHub", "AsyncHubOnUvloop", "AsyncpgListen", "AsyncpgOnUvloop", "Broadcaster", "Hub"]

CAPACITY = 10_000


class AsyncHub(LoopReceiver):
    """`async for event in events`."""

    async def start(self, dsn: str, channel: str) -> None:
        self._hub = await pgpubsub.AsyncHub(dsn).__aenter__()
        self._events = await self._hub.subscribe(channel, capacity=CAPACITY).__aenter__()

    async def take(self, count: int) -> Arrival:
        async for event in self._events:
            if isinstance(event, pgpubsub.Gap):
                raise AssertionError(event)
            pid, channel, payload = event
            count -= 1
            if not count:
                break
        return Arrival(pid, channel, payload, monotonic_ns())

    def fileno(self) -> int:
        return _socket_of(self._hub)

    async def stop(self) -> None:
        await self._hub.close()


class AsyncHubOnUvloop(AsyncHub):
    """The same on uvloop."""

    new_loop = staticmethod(new_uvloop)


class Hub:
    """`for event in events`."""

    def open(self, dsn: str, channel: str) -> None:
        self._hub = pgpubsub.Hub(dsn).__enter__()
        self._events = self._hub.subscribe(channel, capacity=CAPACITY).__enter__()

    def receive(self, count: int) -> Arrival:
        for event in self._events:
            if isinstance(event, pgpubsub.Gap):
                raise AssertionError(event)
            pid, channel, payload = event
            count -= 1
            if not count:
                break
        return Arrival(pid, channel, payload, monotonic_ns())

    def fileno(self) -> int:
        return _socket_of(self._hub)

    def close(self) -> None:
        self._hub.close()


class AsyncpgOnUvloop(Asyncpg):
    """asyncpg's callback, on uvloop."""

    new_loop = staticmethod(new_uvloop)


class AsyncpgListen(LoopReceiver):
    """A handler, as the README of asyncpg-listen has it, with the policy under which nothing is left out."""

    async def start(self, dsn: str, channel: str) -> None:
        import asyncpg_listen

        connected: asyncio.Future[Any] = self._loop.create_future()

        async def connect() -> Any:
            connected.set_result(await connect_asyncpg(dsn))
            return connected.result()

        self._missing = 0
        self._timeout = asyncpg_listen.Timeout
        listener = asyncpg_listen.NotificationListener(connect)
        self._task = self._loop.create_task(
            listener.run({channel: self._handle}, policy=asyncpg_listen.ListenPolicy.ALL)
        )
        self._connection = await connected
        while channel not in self._connection._listeners:  # it does not tell
            await asyncio.sleep(0.001)

    async def _handle(self, notification: NotificationOrTimeout) -> None:
        if isinstance(notification, self._timeout):
            return
        channel, payload = notification.channel, notification.payload
        self._missing -= 1
        if not self._missing:
            assert payload is not None
            self._last.set_result(Arrival(None, channel, payload, monotonic_ns()))

    async def take(self, count: int) -> Arrival:
        self._missing = count
        self._last: asyncio.Future[Arrival] = self._loop.create_future()
        return await self._last

    def fileno(self) -> int:
        return asyncpg_socket(self._connection)

    async def stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


class Broadcaster(LoopReceiver):
    """`async for event in subscriber`, as the README of broadcaster has it."""

    async def start(self, dsn: str, channel: str) -> None:
        import broadcaster

        given = conninfo_to_dict(dsn)
        self._broadcast = broadcaster.Broadcast("postgresql://{user}@{host}:{port}/{dbname}".format(**given))
        await self._broadcast.connect()
        self._subscription = self._broadcast.subscribe(channel)
        subscriber: Any = await self._subscription.__aenter__()
        self._events: AsyncIterator[Any] = aiter(subscriber)

    async def take(self, count: int) -> Arrival:
        async for event in self._events:
            channel, payload = event.channel, event.message
            count -= 1
            if not count:
                break
        return Arrival(None, channel, payload, monotonic_ns())

    def fileno(self) -> int:
        backend: Any = self._broadcast._backend
        return asyncpg_socket(backend._conn)

    async def stop(self) -> None:
        await self._subscription.__aexit__(None, None, None)
        await self._broadcast.disconnect()


def _socket_of(hub: pgpubsub.AsyncHub | pgpubsub.Hub) -> int:
    connection: Any = hub._engine._listening.connection
    return int(connection._fd)
