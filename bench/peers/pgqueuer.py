"""PGQueuer: a job queue over asyncpg."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

from bench.callers import ByTasks
from bench.carrying import SIZE, Append, Desk
from bench.ground import QUEUE
from bench.groups.crew import Post
from bench.on_loop import new_uvloop
from bench.peers.asyncpg import pool
from bench.peers.peer import Peer
from bench.publishing import AsyncNotify

__all__ = ["PEER", "Enqueues", "install", "sends", "take", "work"]

PEER = Peer(
    "pgqueuer",
    "1.6.0",
    "`queries.enqueue()` and `queuer.run(batch_size=...)`, which fetches and writes down so many jobs together, over"
    " `AsyncpgPoolDriver`, the quickest of its drivers, with 5 to 20 connections; workers on uvloop, as its program has"
    " them",
    "https://janbjorge.github.io/pgqueuer/guides/performance-tuning, .../reference/drivers, .../comparisons/benchmarks",
    "hubs, sending: it does jobs, and no messages to all who listen",
)

LEAST, MOST = 5, 20
"""Connections of a worker."""


async def _queries(dsn: str, size: int) -> tuple[Any, Any]:
    from pgqueuer.db import AsyncpgPoolDriver
    from pgqueuer.queries import Queries

    connections = await pool(dsn, size)
    return Queries(AsyncpgPoolDriver(connections)), connections


def install(dsn: str) -> None:
    """Make its tables."""

    async def main() -> None:
        queries, connections = await _queries(dsn, 1)
        async with connections:
            await queries.install()

    asyncio.run(main())


class Enqueues(ByTasks):
    """`await queries.enqueue()`."""

    async def start(self, dsn: str, size: int) -> AsyncNotify:
        queries, connections = await _queries(dsn, size)
        return lambda _, payload: queries.enqueue(QUEUE, payload.encode()), connections.close


@asynccontextmanager
async def sends(dsn: str) -> AsyncIterator[Append]:
    """The same."""
    append, close = await Enqueues().start(dsn, SIZE)
    try:
        yield lambda payload: append(QUEUE, payload)
    finally:
        await close()


@asynccontextmanager
async def _queuer(dsn: str, handler: Callable[[Any], object]) -> AsyncIterator[Any]:
    from pgqueuer import PgQueuer
    from pgqueuer.db import AsyncpgPoolDriver

    async with await pool(dsn, LEAST, MOST) as connections:
        queuer = PgQueuer(AsyncpgPoolDriver(connections))

        @queuer.entrypoint(QUEUE)
        async def work(job: Any) -> None:
            handler(job)

        yield queuer


def _run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=new_uvloop if find_spec("uvloop") else None) as runner:
        runner.run(main)


def work(post: Post) -> None:
    """`await queuer.run(batch_size=...)`."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with _queuer(post.dsn, lambda _: post.count(1)) as queuer:
            post.ready(lambda: loop.call_soon_threadsafe(queuer.shutdown.set))
            await queuer.run(batch_size=post.batch)

    _run(main())


def take(dsn: str, desk: Desk) -> None:
    """An entrypoint; it also notes of each job that it is done."""

    async def main() -> None:
        async with _queuer(dsn, lambda job: desk.take(job.payload.decode())) as queuer:
            asyncio.get_running_loop().call_later(1, desk.open)
            await queuer.run(batch_size=100)

    _run(main())
