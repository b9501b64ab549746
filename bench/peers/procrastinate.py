"""procrastinate: a job queue over psycopg 3."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from bench.callers import ByTasks
from bench.carrying import SIZE, Append, Desk
from bench.ground import QUEUE
from bench.groups.crew import Post
from bench.peers.peer import Peer
from bench.publishing import AsyncNotify

__all__ = ["PEER", "Defers", "install", "sends", "take", "work"]

PEER = Peer(
    "procrastinate",
    "3.10.0",
    "`task.defer_async()`; `app.run_worker_async(concurrency=...)`, which is what comes closest to batches: that many"
    " jobs are handled at the same time. Its pool may grow to 16 connections, four times its default",
    "https://procrastinate.readthedocs.io/en/stable/howto/basics/defer.html,"
    " .../howto/production/concurrency.html, .../howto/basics/worker.html",
    "hubs, sending: it does jobs, and no messages to all who listen",
)

AT_ONCE = 16
"""Jobs that are handled at the same time, as they come."""


def _app(dsn: str, handler: Callable[[str], object], size: int | None = None) -> tuple[Any, Any]:
    """And its task. `size`: that many connections from the start."""
    import procrastinate

    logging.getLogger("procrastinate").setLevel(logging.WARNING)  # it tells of each job
    sizes: Any = {"min_size": size or 4, "max_size": size or SIZE}
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn, **sizes))

    @app.task(name=QUEUE)
    async def work(payload: str) -> None:
        handler(payload)

    return app, work


def _nothing(payload: str) -> None:
    pass


def install(dsn: str) -> None:
    """Make its tables."""

    async def main() -> None:
        app, _ = _app(dsn, _nothing, 1)
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    asyncio.run(main())


class Defers(ByTasks):
    """`await task.defer_async()`."""

    async def start(self, dsn: str, size: int) -> AsyncNotify:
        app, task = _app(dsn, _nothing, size)
        await app.open_async()

        async def append(_: str, payload: str) -> None:
            await task.defer_async(payload=payload)

        return append, app.close_async


@asynccontextmanager
async def sends(dsn: str) -> AsyncIterator[Append]:
    """The same."""
    append, close = await Defers().start(dsn, SIZE)
    try:
        yield lambda payload: append(QUEUE, payload)
    finally:
        await close()


def work(post: Post) -> None:
    """`await app.run_worker_async(concurrency=...)`."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        app, _ = _app(post.dsn, lambda _: post.count(1))
        async with app.open_async():
            running = app.run_worker_async(concurrency=post.batch, install_signal_handlers=False)
            working = asyncio.create_task(running)
            post.ready(lambda: loop.call_soon_threadsafe(working.cancel))
            with suppress(asyncio.CancelledError):
                await working

    asyncio.run(main())


def take(dsn: str, desk: Desk) -> None:
    """The same, as they come."""

    async def main() -> None:
        app, _ = _app(dsn, desk.take)
        async with app.open_async():
            asyncio.get_running_loop().call_later(1, desk.open)
            await app.run_worker_async(concurrency=AT_ONCE, install_signal_handlers=False)

    asyncio.run(main())
