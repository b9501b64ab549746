"""What people write by hand instead of a library: tables, over psycopg 3.

Rows are inserted, each committed by itself over a pool; with a notification in the same statement, and so in the same
transaction, or without one. To carry them as they come, a notification goes out over another connection when a row is
committed, unless one is waiting to go out, and whoever receives it selects the rows that have higher ids than the last.
So rows that are committed in another order than that of their ids are skipped, which nobody notices.

To have them handled, `lock_rows` is how it is mostly written: rows are locked while they are handled, and deleted in
the same transaction. If a handler takes its process with it, nothing tells. `count_attempts` writes down first that it
takes them, for which attempt and for how long, as a group does; so it commits twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import psycopg

from bench.callers import ByTasks, ByThreads
from bench.carrying import SIZE, Append, Desk
from bench.ground import CHANNEL, QUEUE
from bench.groups.crew import Post
from bench.peers.psycopg3 import async_pool, pool
from bench.publishing import AsyncNotify, Notify

__all__ = [
    "SELECT",
    "AsyncInserts",
    "Handle",
    "Inserts",
    "ThroughTable",
    "by_id",
    "count_attempts",
    "handle_as_they_come",
    "insert",
    "install",
    "lock_rows",
    "notifying",
    "sends",
    "take",
    "work",
]

TABLE = """
CREATE TABLE messages (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payload text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
)
"""
SELECT = "SELECT id, payload FROM messages WHERE id > {} ORDER BY id"

LOCK = b"SELECT id, payload FROM messages ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED"
TAKE = b"""
UPDATE messages SET attempts = attempts + 1, taken_until = now() + interval '30 seconds'
 WHERE id = ANY (ARRAY(
    SELECT id FROM messages WHERE taken_until < now() ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED))
RETURNING id, payload
"""
DELETE = b"DELETE FROM messages WHERE id = ANY (%s)"

STORE = (
    "WITH stored AS (INSERT INTO payloads (payload) VALUES (%s) RETURNING id)"
    " SELECT pg_notify(%s, id::text) FROM stored"
)

Handle: TypeAlias = Callable[[psycopg.Connection, int, Callable[[str], None]], int]
"""Has up to so many handled by a function; returns how many that were."""


def insert(parameter: str, *, notify: bool) -> str:
    """The statement that stores a message, with a notification or without."""
    statement = f"INSERT INTO messages (payload) VALUES ({parameter})"
    return f"{statement} RETURNING pg_notify('{QUEUE}', id::text)" if notify else statement


def install(dsn: str) -> None:
    """Make the table."""
    with psycopg.connect(dsn) as connection:
        connection.execute(TABLE)


class AsyncInserts(ByTasks):
    """`await connection.execute()` on a connection of psycopg's pool."""

    def __init__(self, *, notify: bool) -> None:
        self._statement = insert("%s", notify=notify).encode()

    async def start(self, dsn: str, size: int) -> AsyncNotify:
        connections = await async_pool(dsn, size)

        async def append(_: str, payload: str) -> None:
            async with connections.connection() as connection:
                await connection.execute(self._statement, (payload,))

        return append, connections.close


class Inserts(ByThreads):
    """`connection.execute()` on a connection of psycopg's pool."""

    def __init__(self, *, notify: bool) -> None:
        self._statement = insert("%s", notify=notify).encode()

    def start(self, dsn: str, size: int) -> Notify:
        connections = pool(dsn, size)

        def append(_: str, payload: str) -> None:
            with connections.connection() as connection:
                connection.execute(self._statement, (payload,))

        return append, connections.close


class ThroughTable:
    """A long payload becomes a row, and the notification is its id; in one statement, which is one transaction and one
    round trip. Nobody deletes the row while the clock runs."""

    def open(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=0)

    def send(self, payload: str) -> None:
        self._connection.execute(STORE, (payload, CHANNEL))

    def close(self) -> None:
        self._connection.execute("TRUNCATE payloads")
        self._connection.close()


def by_id(dsn: str, desk: Any) -> None:
    """`for notify in connection.notifies()`, and a second connection that reads the row."""
    with (
        psycopg.connect(dsn, autocommit=True) as listening,
        psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as reading,
    ):
        listening.execute(f"LISTEN {CHANNEL}".encode())
        desk.open()
        for notify in listening.notifies():
            row = reading.execute("SELECT payload FROM payloads WHERE id = %s", (int(notify.payload),)).fetchone()
            assert row is not None
            desk.take(row[0])


@asynccontextmanager
async def notifying(execute: Callable[[str], Awaitable[object]]) -> AsyncIterator[Callable[[], None]]:
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
async def sends(dsn: str) -> AsyncIterator[Append]:
    """Over psycopg's pool."""
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    connections = await async_pool(dsn, SIZE)
    statement = insert("%s", notify=False).encode()

    async def execute(text: str) -> None:
        await connection.execute(text.encode())

    async with connection, connections, notifying(execute) as notify:

        async def append(payload: str) -> None:
            async with connections.connection() as one:
                await one.execute(statement, (payload,))
            notify()

        yield append


def take(dsn: str, desk: Desk) -> None:
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


def lock_rows(connection: psycopg.Connection, batch: int, handler: Callable[[str], None]) -> int:
    """BEGIN; SELECT ... FOR UPDATE SKIP LOCKED; DELETE; COMMIT."""
    with connection.transaction():
        return _handled(connection, connection.execute(LOCK, (batch,)).fetchall(), handler)


def count_attempts(connection: psycopg.Connection, batch: int, handler: Callable[[str], None]) -> int:
    """UPDATE ... RETURNING, committed; DELETE, committed."""
    return _handled(connection, connection.execute(TAKE, (batch,)).fetchall(), handler)


def _handled(connection: psycopg.Connection, rows: list[Any], handler: Callable[[str], None]) -> int:
    for _, payload in rows:
        handler(payload)
    if rows:
        connection.execute(DELETE, ([id for id, _ in rows],))
    return len(rows)


def work(post: Post, *, handle: Handle) -> None:
    """Whenever there is something to do, until there is nothing more."""
    with psycopg.connect(post.dsn, autocommit=True) as connection:
        for _ in range(6):  # after which psycopg has prepared it
            handle(connection, post.batch, _nothing)
        post.ready()
        while post.told():
            while number := handle(connection, post.batch, _nothing):
                post.count(number)


def handle_as_they_come(dsn: str, desk: Desk, *, handle: Handle) -> None:
    """Up to 100 together."""
    with psycopg.connect(dsn, autocommit=True) as listener, psycopg.connect(dsn, autocommit=True) as connection:
        listener.execute(f"LISTEN {QUEUE}".encode())
        for _ in range(6):
            handle(connection, 100, _nothing)
        desk.open()
        while True:
            for _ in listener.notifies(stop_after=1):
                pass
            while handle(connection, 100, desk.take):
                pass


def _nothing(payload: str) -> None:
    pass
