"""sqlspec: its event channel, over PostgreSQL with asyncpg, on its backend of LISTEN and NOTIFY."""

from __future__ import annotations

import asyncio
from time import monotonic_ns
from typing import Any

from bench.callers import POOL_SIZES, ByTasks
from bench.contestants import Arrival
from bench.on_loop import LoopReceiver
from bench.peers.asyncpg import socket_of
from bench.peers.peer import Peer, url
from bench.publishing import AsyncNotify, LoopPublisher

__all__ = ["PEER", "Pool", "Publisher", "Receiver", "listening", "opened"]

PEER = Peer(
    "sqlspec",
    "0.69.0",
    "`channel.listen()` with a handler, a task of its own; `channel.publish()` over a pool of asyncpg's. What it"
    " receives has to be JSON: it is sent text in quotes, of the same length; its own envelope is longer",
    "https://sqlspec.dev/reference/extensions/events.html, docs/guides/events/database-event-channels.md",
    "streams, groups: its queue in a table is another backend, which is not measured; blocking hubs: over asyncpg it is"
    " asynchronous",
)

LISTENING = 1
"""Connections that it keeps to itself."""


def opened(dsn: str, size: int = 1) -> tuple[Any, Any]:
    """Its configuration, and an event channel of it."""
    from sqlspec import SQLSpec
    from sqlspec.adapters.asyncpg import AsyncpgConfig

    most = size + LISTENING
    config = AsyncpgConfig(
        connection_config={"dsn": url(dsn), "min_size": size, "max_size": most},
        extension_config={"events": {"backend": "notify"}},
    )
    specification = SQLSpec()
    specification.add_config(config)
    return config, specification.event_channel(config)


async def listening(events: Any, channel: str, handler: Any) -> Any:
    """Its listener, once it listens."""
    listener = events.listen(channel, handler)
    while not (hub := events._backend._hub) or not hub._queues.get(channel):  # it does not tell
        await asyncio.sleep(0.001)
    return listener


class Receiver(LoopReceiver):
    """A handler."""

    quotes = True

    async def start(self, dsn: str, channel: str) -> None:
        self._missing = 0
        self._config, self._channel = opened(dsn)
        self._listener = await listening(self._channel, channel, self._handle)

    async def _handle(self, message: Any) -> None:
        channel, payload = message.channel, message.payload["value"]
        self._missing -= 1
        if not self._missing:
            self._last.set_result(Arrival(None, channel, payload, monotonic_ns()))

    async def take(self, count: int) -> Arrival:
        self._missing = count
        self._last: asyncio.Future[Arrival] = self._loop.create_future()
        return await self._last

    def fileno(self) -> int:
        return socket_of(self._channel._backend._hub._connection)

    async def stop(self) -> None:
        await self._channel.stop_listener(self._listener.id)
        await self._channel.shutdown()
        await self._config.close_pool()


async def _started(dsn: str, size: int) -> AsyncNotify:
    config, events = opened(dsn, size)

    async def notify(channel: str, payload: str) -> None:
        await events.publish(channel, {"value": payload})

    async def close() -> None:
        await events.shutdown()
        await config.close_pool()

    return notify, close


class Publisher(LoopPublisher):
    """`await channel.publish()`."""

    async def start(self, dsn: str) -> AsyncNotify:
        return await _started(dsn, 1)


class Pool(ByTasks):
    """The same, by many."""

    sizes = POOL_SIZES

    async def start(self, dsn: str, size: int) -> AsyncNotify:
        return await _started(dsn, size)
