"""Who carries entries from this process to another, as they come.

By hand, rows are inserted, each committed by itself, over a pool; when that is done a notification goes out over
another connection, unless one is waiting to go out; and whoever receives it selects the rows that have higher ids than
the last. So rows that are committed in another order than that of their ids are skipped, which nobody notices.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from threading import Thread
from time import monotonic, monotonic_ns, sleep
from typing import Any, TypeAlias

import psycopg

import pgpubsub
from bench.child import Pipe
from bench.raw_loops import connect_asyncpg
from bench.streams.places import QUEUE
from bench.streams.writers import ASYNCPG_INSERT, PSYCOPG_INSERT, asyncpg_pool

__all__ = [
    "Desk",
    "Way",
    "asyncpg_sends",
    "hub_sends",
    "pgqueuer_sends",
    "psycopg_sends",
    "take",
    "take_async",
    "take_asyncpg",
    "take_pgqueuer",
    "take_psycopg",
]

SIZE = 16
"""Connections in a pool."""

SELECT = "SELECT id, payload FROM messages WHERE id > {} ORDER BY id"

Append: TypeAlias = Callable[[str], Awaitable[object]]
Sends: TypeAlias = Callable[[str], AbstractAsyncContextManager[Append]]


@dataclass(frozen=True)
class Way:
    """Who sends, by a DSN, and who takes what comes, for ever."""

    sends: Sends
    take: Callable[[str, Desk], None]


class Desk:
    """In the receiver's process: notes when something came, and tells when asked."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._came: list[tuple[str, int]] = []

    def open(self) -> None:
        """The receiver is ready."""
        self._pipe.send("ready")
        Thread(target=self._answer, daemon=True).start()

    def take(self, payload: str) -> None:
        """It has `payload`."""
        self._came.append((payload, monotonic_ns()))

    def _answer(self) -> None:
        while True:
            try:
                first, expected, patience = self._pipe.recv()
            except EOFError:  # this is the end
                return
            before, deadline = 0, monotonic() + patience
            while (so_far := self._since(first)) < expected and monotonic() < deadline:
                if so_far > before:
                    before, deadline = so_far, monotonic() + patience
                sleep(0.01)
            came, self._came = self._came, []
            self._pipe.send(came)

    def _since(self, first: str) -> int:
        return sum(payload >= first for payload, _ in self._came)


@asynccontextmanager
async def hub_sends(dsn: str) -> AsyncIterator[Append]:
    """`await stream.append()`."""
    async with pgpubsub.AsyncHub(dsn) as hub:
        yield hub.stream(QUEUE).append


def take_async(dsn: str, desk: Desk) -> None:
    """`async for entry in entries`."""

    async def main() -> None:
        async with pgpubsub.AsyncHub(dsn) as hub, hub.stream(QUEUE).read(after=pgpubsub.END) as entries:
            desk.open()
            async for entry in entries:
                assert isinstance(entry, pgpubsub.Entry), entry
                desk.take(entry.payload)

    asyncio.run(main())


def take(dsn: str, desk: Desk) -> None:
    """`for entry in entries`."""
    with pgpubsub.Hub(dsn) as hub, hub.stream(QUEUE).read(after=pgpubsub.END) as entries:
        desk.open()
        for entry in entries:
            assert isinstance(entry, pgpubsub.Entry), entry
            desk.take(entry.payload)


@asynccontextmanager
async def _notifying(execute: Callable[[str], Awaitable[object]]) -> AsyncIterator[Callable[[], None]]:
    """Something to call that has a notification sent."""
    wanted = asyncio.Event()

    async def notify() -> None:
        while True:
            await wanted.wait()
            wanted.clear()
            await execute(f"NOTIFY {QUEUE}")

    task = asyncio.create_task(notify())
    try:
        yield wanted.set
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def asyncpg_sends(dsn: str) -> AsyncIterator[Append]:
    """Over asyncpg's pool, which does not reset connections here: they are used for nothing else."""

    async def keep(_: Any) -> None:
        """Nothing was changed."""

    connection = await connect_asyncpg(dsn)
    async with await asyncpg_pool(dsn, SIZE, reset=keep) as pool, _notifying(connection.execute) as notify:

        async def append(payload: str) -> None:
            await pool.execute(ASYNCPG_INSERT, payload)
            notify()

        yield append
    await connection.close()


def take_asyncpg(dsn: str, desk: Desk) -> None:
    """A listener, and `await connection.fetch()`."""

    async def main() -> None:
        connection, came = await connect_asyncpg(dsn), asyncio.Event()
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


@asynccontextmanager
async def psycopg_sends(dsn: str) -> AsyncIterator[Append]:
    """Over psycopg's pool."""
    from psycopg_pool import AsyncConnectionPool

    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    pool = AsyncConnectionPool(dsn, min_size=SIZE, max_size=SIZE, kwargs={"autocommit": True}, open=False)

    async def execute(statement: str) -> None:
        await connection.execute(statement.encode())

    async with connection, pool, _notifying(execute) as notify:
        await pool.wait()

        async def append(payload: str) -> None:
            async with pool.connection() as one:
                await one.execute(PSYCOPG_INSERT, (payload,))
            notify()

        yield append


def take_psycopg(dsn: str, desk: Desk) -> None:
    """`connection.notifies()`, and `connection.execute()` on another connection."""
    statement = SELECT.format("%s").encode()
    with psycopg.connect(dsn, autocommit=True) as listener, psycopg.connect(dsn, autocommit=True) as reader:
        listener.execute(f"LISTEN {QUEUE}".encode())
        row = reader.execute("SELECT coalesce(max(id), 0) FROM messages").fetchone()
        assert row is not None
        (last,) = row
        for _ in range(6):  # after which psycopg has prepared it
            reader.execute(statement, (last,)).fetchall()
        desk.open()
        while True:
            for _ in listener.notifies(stop_after=1):
                pass
            for number, payload in reader.execute(statement, (last,)).fetchall():
                last = number
                desk.take(payload)


@asynccontextmanager
async def pgqueuer_sends(dsn: str) -> AsyncIterator[Append]:
    """`await queries.enqueue()`."""
    from pgqueuer.db import AsyncpgPoolDriver
    from pgqueuer.queries import Queries

    async with await asyncpg_pool(dsn, SIZE) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))

        async def append(payload: str) -> None:
            await queries.enqueue(QUEUE, payload.encode())

        yield append


def take_pgqueuer(dsn: str, desk: Desk) -> None:
    """An entrypoint (its manual, "Consumer"); it also notes of each job that it is done."""

    async def main() -> None:
        from pgqueuer import PgQueuer
        from pgqueuer.db import AsyncpgPoolDriver

        async with await asyncpg_pool(dsn, 4) as pool:
            queuer = PgQueuer(AsyncpgPoolDriver(pool))

            @queuer.entrypoint(QUEUE)
            async def work(job: Any) -> None:
                desk.take(job.payload.decode())

            asyncio.get_running_loop().call_later(1, desk.open)
            await queuer.run(batch_size=100)

    asyncio.run(main())
