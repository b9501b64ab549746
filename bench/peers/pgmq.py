"""pgmq: a queue in SQL, installed without its extension, and its client in Python over asyncpg."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bench.callers import ByTasks
from bench.carrying import SIZE, Append, Desk
from bench.ground import QUEUE
from bench.groups.crew import Post
from bench.peers.asyncpg import pool
from bench.peers.peer import Peer
from bench.publishing import AsyncNotify

__all__ = ["PEER", "Sends", "install", "sends", "take", "work"]

PEER = Peer(
    "pgmq",
    "1.1.4",
    "`queue.send()`; `queue.read_batch()`, then `queue.delete_batch()`; `queue.read_with_poll()` for what comes, which"
    " looks every 100 ms unless told otherwise",
    'https://github.com/pgmq/pgmq-py (its README, "Quick Start", Async)',
    "hubs, sending: it keeps jobs, and tells nobody",
)

VISIBLE_AFTER = 30
"""Seconds after which what it has handed out comes again."""


async def _queue(connections: Any) -> Any:
    from pgmq.async_queue import PGMQueue

    queue: Any = PGMQueue(pool=connections, init_extension=False, vt=VISIBLE_AFTER)
    await queue.init()
    return queue


def install(dsn: str) -> None:
    """Make its functions, and the queue."""
    import psycopg
    from pgmq.install import install_pgmq_from_sql

    with psycopg.connect(dsn) as connection:
        install_pgmq_from_sql(conn=connection)
        connection.execute("SELECT pgmq.create(%s)", (QUEUE,))


class Sends(ByTasks):
    """`await queue.send()`."""

    async def start(self, dsn: str, size: int) -> AsyncNotify:
        connections = await pool(dsn, size)
        queue = await _queue(connections)
        return lambda _, payload: queue.send(QUEUE, {"payload": payload}), connections.close


@asynccontextmanager
async def sends(dsn: str) -> AsyncIterator[Append]:
    """The same."""
    append, close = await Sends().start(dsn, SIZE)
    try:
        yield lambda payload: append(QUEUE, payload)
    finally:
        await close()


def work(post: Post) -> None:
    """`await queue.read_batch()`, `await queue.delete_batch()`. What is read and not deleted comes again."""

    async def main() -> None:
        async with await pool(post.dsn, 1) as connections:
            queue = await _queue(connections)
            post.ready()
            while await asyncio.to_thread(post.told):
                while messages := await queue.read_batch(QUEUE, batch_size=post.batch):
                    await queue.delete_batch(QUEUE, [message.msg_id for message in messages])
                    post.count(len(messages))

    asyncio.run(main())


def take(dsn: str, desk: Desk) -> None:
    """`await queue.read_with_poll()`."""

    async def main() -> None:
        async with await pool(dsn, 1) as connections:
            queue = await _queue(connections)
            desk.open()
            while True:
                for message in (messages := await queue.read_with_poll(QUEUE, qty=100) or []):
                    desk.take(message.message["payload"])
                if messages:
                    await queue.delete_batch(QUEUE, [message.msg_id for message in messages])

    asyncio.run(main())
