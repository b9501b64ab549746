"""asyncpg, with its pool; and what people write by hand over it: a table, and a connection for each web client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from bench.callers import POOL_SIZES, ByTasks
from bench.carrying import SIZE, Append, Desk
from bench.contestants import Arrival
from bench.ground import QUEUE
from bench.on_loop import LoopReceiver, new_uvloop
from bench.peers.peer import Peer, url
from bench.peers.tables import SELECT, insert, notifying
from bench.publishing import AsyncNotify, LoopPublisher

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import StreamingResponse

__all__ = [
    "PEER",
    "Echo",
    "Entrant",
    "Inserts",
    "Pool",
    "Publisher",
    "PublisherOnUvloop",
    "Receiver",
    "ReceiverOnUvloop",
    "application",
    "connect",
    "pool",
    "sending_pool",
    "sends",
    "socket_of",
    "take",
]

PEER = Peer(
    "asyncpg",
    "0.32.0",
    "`add_listener()` with a plain function; `execute()` with parameters, which prepares and caches the statement; its"
    " pool, with a `reset` that does nothing where connections only send or insert: nothing is changed in them, and its"
    " own takes a round trip after each use. Shown on uvloop, too, which its manual does not ask for",
    "https://magicstack.github.io/asyncpg/current/api/index.html (`Connection.add_listener`, `execute`, `create_pool`),"
    " .../current/usage.html#connection-pools",
)

STATEMENT = "SELECT pg_notify($1, $2)"


async def connect(dsn: str) -> Any:
    """A connection by libpq's connection string."""
    import asyncpg

    return await asyncpg.connect(url(dsn))


async def pool(dsn: str, size: int, most: int | None = None, **options: Any) -> Any:
    """Connections, as many at first as `size`."""
    import asyncpg

    return await asyncpg.create_pool(url(dsn), min_size=size, max_size=most or size, **options)


async def sending_pool(dsn: str, size: int) -> Any:
    """The same for statements that change nothing in a connection, so that there is nothing to be reset after them."""

    async def keep(_: Any) -> None:
        pass

    return await pool(dsn, size, reset=keep)


def socket_of(connection: Any) -> int:
    """Its file descriptor."""
    return int(connection._transport.get_extra_info("socket").fileno())


class Receiver(LoopReceiver):
    """`await connection.add_listener()`: a callback."""

    async def start(self, dsn: str, channel: str) -> None:
        self._connection = await connect(dsn)
        await self._connection.add_listener(channel, self._on_notification)

    async def take(self, count: int) -> Arrival:
        self._missing = count
        self._last: asyncio.Future[Arrival] = self._loop.create_future()
        return await self._last

    def _on_notification(self, connection: object, pid: int, channel: str, payload: str) -> None:
        self._missing -= 1
        if not self._missing:
            self._last.set_result(Arrival(pid, channel, payload, monotonic_ns()))

    def fileno(self) -> int:
        return socket_of(self._connection)

    async def stop(self) -> None:
        self._connection.terminate()  # close() would complain that somebody still listens


class ReceiverOnUvloop(Receiver):
    """The same on uvloop."""

    new_loop = staticmethod(new_uvloop)


class Echo:
    """`await connection.execute()`, and the callback."""

    def open(self, dsn: str, channel: str) -> None:
        self._channel = channel
        self._runner = asyncio.Runner()
        self._came: asyncio.Future[str]
        self._connection = self._runner.run(self._open(dsn))

    async def _open(self, dsn: str) -> Any:
        connection = await connect(dsn)
        await connection.add_listener(self._channel, lambda *notification: self._came.set_result(notification[3]))
        return connection

    def echo(self, payload: str) -> str:
        return self._runner.run(self._echo(payload))

    async def _echo(self, payload: str) -> str:
        self._came = asyncio.get_running_loop().create_future()
        await self._connection.execute(STATEMENT, self._channel, payload)
        return await self._came

    def close(self) -> None:
        self._connection.terminate()
        self._runner.close()


class Publisher(LoopPublisher):
    """`await connection.execute()`."""

    async def start(self, dsn: str) -> AsyncNotify:
        connection = await connect(dsn)
        return lambda *args: connection.execute(STATEMENT, *args), connection.close


class PublisherOnUvloop(Publisher):
    """The same on uvloop."""

    new_loop = staticmethod(new_uvloop)


class Pool(ByTasks):
    """`await pool.execute()`."""

    sizes = POOL_SIZES

    async def start(self, dsn: str, size: int) -> AsyncNotify:
        connections = await sending_pool(dsn, size)
        return lambda *args: connections.execute(STATEMENT, *args), connections.close


class Entrant:
    """`add_listener()` for one after the other: a connection does one thing at a time."""

    def open(self, dsn: str) -> None:
        self._runner = asyncio.Runner()
        self._connection = self._runner.run(connect(dsn))

    def enter(self, channels: list[str]) -> None:
        self._runner.run(self._enter(channels))

    async def _enter(self, channels: list[str]) -> None:
        for channel in channels:
            await self._connection.add_listener(channel, lambda *notification: None)

    def close(self) -> None:
        self._connection.terminate()
        self._runner.close()


class Inserts(ByTasks):
    """`await pool.execute()`: a row of a table, with a notification if so wanted."""

    def __init__(self, *, notify: bool) -> None:
        self._statement = insert("$1", notify=notify)

    async def start(self, dsn: str, size: int) -> AsyncNotify:
        connections = await sending_pool(dsn, size)
        return lambda _, payload: connections.execute(self._statement, payload), connections.close


@asynccontextmanager
async def sends(dsn: str) -> AsyncIterator[Append]:
    """Rows over its pool."""
    connection, statement = await connect(dsn), insert("$1", notify=False)
    async with await sending_pool(dsn, SIZE) as connections, notifying(connection.execute) as notify:

        async def append(payload: str) -> None:
            await connections.execute(statement, payload)
            notify()

        yield append
    await connection.close()


def take(dsn: str, desk: Desk) -> None:
    """A listener, and `await connection.fetch()`."""

    async def main() -> None:
        connection, came = await connect(dsn), asyncio.Event()
        await connection.add_listener(QUEUE, lambda *_: came.set())
        statement = SELECT.format("$1")
        last = await connection.fetchval("SELECT coalesce(max(id), 0) FROM messages")
        await connection.fetch(statement, last)  # from now on it is prepared
        desk.open()
        while True:
            await came.wait()
            came.clear()
            for number, payload in await connection.fetch(statement, last):
                last = number
                desk.take(payload)

    asyncio.run(main())


def application() -> Starlette:
    """Server-sent events with a connection for each client, which listens: what one writes first."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    return Starlette(routes=[Route("/events", _respond)])


async def _respond(_: Request) -> StreamingResponse:
    from starlette.responses import StreamingResponse

    return StreamingResponse(_events(), media_type="text/event-stream")


async def _events() -> AsyncIterator[str]:
    import asyncpg

    queue: asyncio.Queue[str] = asyncio.Queue()

    def on_notification(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
        queue.put_nowait(str(payload))

    connection = await asyncpg.connect(os.environ["BENCH_URL"])
    try:
        await connection.add_listener("bench", on_notification)
        yield ": listening\n\n"
        while True:
            yield f"data: {await queue.get()}\n\n"
    finally:
        await connection.close()
