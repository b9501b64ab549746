"""broadcaster: publish and subscribe for asyncio, over PostgreSQL with asyncpg."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from bench.callers import ByTasks
from bench.contestants import Arrival
from bench.on_loop import LoopReceiver
from bench.peers.asyncpg import socket_of
from bench.peers.peer import Peer, url
from bench.publishing import AsyncNotify, LoopPublisher

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import StreamingResponse

__all__ = ["PEER", "Locked", "Publisher", "Receiver", "application", "connect"]

PEER = Peer(
    "broadcaster",
    "0.3.1",
    "`async for event in subscriber`; `publish()`, which by many tasks at once has to stand behind a lock, since it has"
    " one connection and such calls fail; behind Starlette its complete example, with server-sent events in place of a"
    " WebSocket",
    "https://github.com/encode/broadcaster (its README)",
    "streams, groups: it keeps nothing",
)


async def connect(dsn: str) -> Any:
    """A `Broadcast` that is connected."""
    import broadcaster

    broadcast = broadcaster.Broadcast(url(dsn))
    await broadcast.connect()
    return broadcast


class Receiver(LoopReceiver):
    """`async for event in subscriber`."""

    async def start(self, dsn: str, channel: str) -> None:
        self._broadcast = await connect(dsn)
        self._subscription = self._broadcast.subscribe(channel)
        self._events: AsyncIterator[Any] = aiter(await self._subscription.__aenter__())

    async def take(self, count: int) -> Arrival:
        async for event in self._events:
            channel, payload = event.channel, event.message
            count -= 1
            if not count:
                break
        return Arrival(None, channel, payload, monotonic_ns())

    def fileno(self) -> int:
        return socket_of(self._broadcast._backend._conn)

    async def stop(self) -> None:
        await self._subscription.__aexit__(None, None, None)
        await self._broadcast.disconnect()


class Publisher(LoopPublisher):
    """`await broadcast.publish()`."""

    async def start(self, dsn: str) -> AsyncNotify:
        broadcast = await connect(dsn)
        return broadcast.publish, broadcast.disconnect


class Locked(ByTasks):
    """`await broadcast.publish()` behind a lock."""

    async def start(self, dsn: str, size: int) -> AsyncNotify:
        broadcast, lock = await connect(dsn), asyncio.Lock()

        async def notify(channel: str, payload: str) -> None:
            async with lock:
                await broadcast.publish(channel, payload)

        return notify, broadcast.disconnect


def application() -> Starlette:
    """Server-sent events. One subscriber is there from the start and takes what comes: while broadcaster begins to
    listen to a channel, others that subscribe to it fail ("another operation is in progress")."""
    from broadcaster import Broadcast
    from starlette.applications import Starlette
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    broadcast = Broadcast(os.environ["BENCH_URL"])

    async def respond(_: Request) -> StreamingResponse:
        return StreamingResponse(events(), media_type="text/event-stream")

    async def events() -> AsyncIterator[str]:
        async with broadcast.subscribe(channel="bench") as subscriber:
            found: Any = subscriber  # whose types say less than it is
            async for event in found:
                yield f"data: {event.message}\n\n"

    async def keep_listening(listening: asyncio.Event) -> None:
        async with broadcast.subscribe(channel="bench") as subscriber:
            listening.set()
            while True:
                await subscriber.get()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with broadcast, asyncio.TaskGroup() as tasks:
            listening = asyncio.Event()
            task = tasks.create_task(keep_listening(listening))
            await listening.wait()
            yield
            task.cancel()

    return Starlette(routes=[Route("/events", respond)], lifespan=lifespan)
