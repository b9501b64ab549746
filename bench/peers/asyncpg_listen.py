"""asyncpg-listen: a listener that reconnects, over asyncpg."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from bench.contestants import Arrival
from bench.on_loop import LoopReceiver
from bench.peers.asyncpg import connect, socket_of
from bench.peers.peer import Peer

if TYPE_CHECKING:
    from asyncpg_listen import NotificationOrTimeout

__all__ = ["PEER", "Receiver", "listening"]

PEER = Peer(
    "asyncpg-listen",
    "0.0.9",
    "`NotificationListener.run()` with a handler, and `ListenPolicy.ALL`, under which nothing is left out",
    "https://github.com/Pliner/asyncpg-listen (its README)",
    "sending, streams, groups: it only listens; entering many channels: none can be added while it runs",
)


async def listening(dsn: str, channels: list[str], handler: Any) -> tuple[asyncio.Task[None], Any]:
    """Its task, once it listens to all of them, and its connection."""
    import asyncpg_listen

    connected: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def open_connection() -> Any:
        connected.set_result(await connect(dsn))
        return connected.result()

    listener = asyncpg_listen.NotificationListener(open_connection)
    running = listener.run(dict.fromkeys(channels, handler), policy=asyncpg_listen.ListenPolicy.ALL)
    task = asyncio.create_task(running)
    connection = await connected
    while not connection._listeners.keys() >= set(channels):  # it does not tell
        await asyncio.sleep(0.001)
    return task, connection


class Receiver(LoopReceiver):
    """A handler."""

    async def start(self, dsn: str, channel: str) -> None:
        import asyncpg_listen

        self._missing = 0
        self._timeout = asyncpg_listen.Timeout
        self._task, self._connection = await listening(dsn, [channel], self._handle)

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
        return socket_of(self._connection)

    async def stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
