"""Who is called by many tasks at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from psycopg.conninfo import conninfo_to_dict

import pgpubsub
from bench.hub.publishers import ASYNCPG_STATEMENT, PSYCOPG_STATEMENT
from bench.on_loop import new_uvloop
from bench.sending.callers import AsyncCall, ByTasks

__all__ = ["POOL_SIZES", "AsyncHub", "AsyncHubOnUvloop", "AsyncpgPool", "Broadcaster", "PsycopgPool"]

POOL_SIZES = (1, 4, 8, 16)

Started = tuple[AsyncCall, Callable[[], Awaitable[object]]]


class AsyncHub(ByTasks):
    """`await hub.notify()`."""

    async def start(self, dsn: str, size: int) -> Started:
        hub = await pgpubsub.AsyncHub(dsn).__aenter__()
        return hub.notify, hub.close


class AsyncHubOnUvloop(AsyncHub):
    """The same on uvloop."""

    new_loop = staticmethod(new_uvloop)


class AsyncpgPool(ByTasks):
    """`await pool.execute()` (its manual, "Connection Pools"), which resets the connection after each use."""

    sizes = POOL_SIZES

    async def start(self, dsn: str, size: int) -> Started:
        import asyncpg

        given = conninfo_to_dict(dsn)
        given["database"] = given.pop("dbname")
        pool = await asyncpg.create_pool(**given, min_size=size, max_size=size)
        return lambda *args: pool.execute(ASYNCPG_STATEMENT, *args), pool.close


class PsycopgPool(ByTasks):
    """`await connection.execute()` on a connection of psycopg's pool (its manual, "Connection pools"). In autocommit
    mode, or each would be three round trips."""

    sizes = POOL_SIZES

    async def start(self, dsn: str, size: int) -> Started:
        from psycopg_pool import AsyncConnectionPool

        pool = AsyncConnectionPool(dsn, min_size=size, max_size=size, kwargs={"autocommit": True}, open=False)
        await pool.open(wait=True)

        async def notify(channel: str, payload: str) -> None:
            async with pool.connection() as connection:
                await connection.execute(PSYCOPG_STATEMENT, (channel, payload))

        return notify, pool.close


class Broadcaster(ByTasks):
    """`await broadcast.publish()` behind a lock: it has one connection, and calls at the same time fail."""

    async def start(self, dsn: str, size: int) -> Started:
        import broadcaster

        given = conninfo_to_dict(dsn)
        broadcast = broadcaster.Broadcast("postgresql://{user}@{host}:{port}/{dbname}".format(**given))
        await broadcast.connect()
        lock = asyncio.Lock()

        async def notify(channel: str, payload: str) -> None:
            async with lock:
                await broadcast.publish(channel, payload)

        return notify, broadcast.disconnect
