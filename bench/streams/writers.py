"""Who appends for many at once: one call for one entry, which is committed when that returns.

By hand it is a row of a table, in autocommit mode; with a notification in the same statement, and so in the same
transaction, or without one. The job queues store a job, each by its own client.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from psycopg.conninfo import conninfo_to_dict

import pgpubsub
from bench.sending.callers import AsyncCall, ByTasks, ByThreads, Call
from bench.streams.places import QUEUE

__all__ = [
    "ASYNCPG_INSERT",
    "INSTALLERS",
    "PSYCOPG_INSERT",
    "AsyncHub",
    "AsyncpgPool",
    "Hub",
    "PgQueuer",
    "Pgmq",
    "Procrastinate",
    "PsycopgPool",
    "PsycopgThreadPool",
    "asyncpg_pool",
]

PSYCOPG_INSERT = "INSERT INTO messages (payload) VALUES (%s)"
PSYCOPG_NOTIFY = f"{PSYCOPG_INSERT} RETURNING pg_notify('{QUEUE}', id::text)"
ASYNCPG_INSERT = PSYCOPG_INSERT.replace("%s", "$1")
ASYNCPG_NOTIFY = PSYCOPG_NOTIFY.replace("%s", "$1")

Started = tuple[AsyncCall, Callable[[], Awaitable[object]]]
ThreadsStarted = tuple[Call, Callable[[], object]]

# Each call has a channel, by which the stream or queue might be chosen, and a payload. There is one of them here.


class AsyncHub(ByTasks):
    """`await stream.append()`."""

    async def start(self, dsn: str, size: int) -> Started:
        hub = await pgpubsub.AsyncHub(dsn).__aenter__()
        stream = hub.stream(QUEUE)
        return lambda _, payload: stream.append(payload), hub.close


async def asyncpg_pool(dsn: str, size: int, **options: Any) -> Any:
    """asyncpg's pool."""
    import asyncpg

    given = conninfo_to_dict(dsn)
    given["database"] = given.pop("dbname")
    return await asyncpg.create_pool(**given, min_size=size, max_size=size, **options)


class AsyncpgPool(ByTasks):
    """`await pool.execute()`; with a notification if so wanted."""

    def __init__(self, *, notify: bool) -> None:
        self._statement = ASYNCPG_NOTIFY if notify else ASYNCPG_INSERT

    async def start(self, dsn: str, size: int) -> Started:
        pool = await asyncpg_pool(dsn, size)
        return lambda _, payload: pool.execute(self._statement, payload), pool.close


class PsycopgPool(ByTasks):
    """`await connection.execute()` on a connection of psycopg's pool."""

    def __init__(self, *, notify: bool) -> None:
        self._statement = PSYCOPG_NOTIFY if notify else PSYCOPG_INSERT

    async def start(self, dsn: str, size: int) -> Started:
        from psycopg_pool import AsyncConnectionPool

        pool = AsyncConnectionPool(dsn, min_size=size, max_size=size, kwargs={"autocommit": True}, open=False)
        await pool.open(wait=True)

        async def append(_: str, payload: str) -> None:
            async with pool.connection() as connection:
                await connection.execute(self._statement.encode(), (payload,))

        return append, pool.close


class Procrastinate(ByTasks):
    """`await task.defer_async()` (its manual, "Defer a task")."""

    async def start(self, dsn: str, size: int) -> Started:
        import procrastinate

        _quieten("procrastinate")
        connector = procrastinate.PsycopgConnector(conninfo=dsn, min_size=size, max_size=size)
        app = procrastinate.App(connector=connector)

        @app.task(name=QUEUE)
        async def work(payload: str) -> None:
            """Never run."""

        await app.open_async()

        async def append(_: str, payload: str) -> None:
            await work.defer_async(payload=payload)

        return append, app.close_async


class PgQueuer(ByTasks):
    """`await queries.enqueue()` over a pool (its manual, "Drivers")."""

    async def start(self, dsn: str, size: int) -> Started:
        from pgqueuer.db import AsyncpgPoolDriver
        from pgqueuer.queries import Queries

        pool = await asyncpg_pool(dsn, size)
        queries = Queries(AsyncpgPoolDriver(pool))
        return lambda _, payload: queries.enqueue(QUEUE, payload.encode()), pool.close


class Pgmq(ByTasks):
    """`await queue.send()` of its Python client, over a pool; the extension is installed as SQL alone."""

    async def start(self, dsn: str, size: int) -> Started:
        from pgmq.async_queue import PGMQueue

        pool = await asyncpg_pool(dsn, size)
        queue: Any = PGMQueue(pool=pool, init_extension=False)
        await queue.init()
        return lambda _, payload: queue.send(QUEUE, {"payload": payload}), pool.close


class Hub(ByThreads):
    """`stream.append()`."""

    def start(self, dsn: str, size: int) -> ThreadsStarted:
        hub = pgpubsub.Hub(dsn).__enter__()
        stream = hub.stream(QUEUE)
        return lambda _, payload: stream.append(payload), hub.close


class PsycopgThreadPool(ByThreads):
    """`connection.execute()` on a connection of psycopg's pool."""

    def __init__(self, *, notify: bool) -> None:
        self._statement = PSYCOPG_NOTIFY if notify else PSYCOPG_INSERT

    def start(self, dsn: str, size: int) -> ThreadsStarted:
        from psycopg_pool import ConnectionPool

        pool = ConnectionPool(dsn, min_size=size, max_size=size, kwargs={"autocommit": True}, open=False)
        pool.open(wait=True)

        def append(_: str, payload: str) -> None:
            with pool.connection() as connection:
                connection.execute(self._statement.encode(), (payload,))

        return append, pool.close


def _install_procrastinate(dsn: str) -> None:
    import procrastinate

    _quieten("procrastinate")

    async def install() -> None:
        async with procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn)).open_async() as app:
            await app.schema_manager.apply_schema_async()

    asyncio.run(install())


def _install_pgqueuer(dsn: str) -> None:
    from pgqueuer.db import AsyncpgPoolDriver
    from pgqueuer.queries import Queries

    async def install() -> None:
        async with await asyncpg_pool(dsn, 1) as pool:
            await Queries(AsyncpgPoolDriver(pool)).install()

    asyncio.run(install())


def _install_pgmq(dsn: str) -> None:
    import psycopg
    from pgmq.install import install_pgmq_from_sql

    with psycopg.connect(dsn) as connection:
        install_pgmq_from_sql(conn=connection)
        connection.execute("SELECT pgmq.create(%s)", (QUEUE,))


INSTALLERS: Mapping[str, Callable[[str], None]] = {
    "procrastinate": _install_procrastinate,
    "pgqueuer": _install_pgqueuer,
    "pgmq": _install_pgmq,
}
"""By module: what makes its tables in a database."""


def _quieten(logger: str) -> None:
    """It tells of each job that is stored."""
    logging.getLogger(logger).setLevel(logging.WARNING)
