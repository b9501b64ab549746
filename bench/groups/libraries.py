"""Who handles jobs with a library of others, each as its manual has it.

None of procrastinate and PGQueuer has handlers for many jobs at once; what comes closest is given to them: that many
jobs are handled at the same time (`concurrency`), or fetched and written down together (`batch_size`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from bench.groups.crew import Post
from bench.streams.lines import Append, Desk
from bench.streams.places import QUEUE
from bench.streams.writers import Pgmq, Procrastinate, asyncpg_pool

__all__ = [
    "pgmq_sends",
    "procrastinate_sends",
    "take_pgmq",
    "take_procrastinate",
    "work_pgmq",
    "work_pgqueuer",
    "work_procrastinate",
]

SIZE = 16
"""Connections that send."""

AT_ONCE = 16
"""Jobs that are handled at the same time, as they come."""

VISIBLE_AFTER = 30
"""Seconds after which what pgmq has handed out comes again."""


def _procrastinate(dsn: str, handler: Callable[[str], object]) -> Any:
    import procrastinate

    logging.getLogger("procrastinate").setLevel(logging.WARNING)
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))

    @app.task(name=QUEUE)
    async def work(payload: str) -> None:
        handler(payload)

    return app


def work_procrastinate(post: Post) -> None:
    """`await app.run_worker_async(concurrency=...)` (its manual, "Launch a worker", "Concurrency")."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        app = _procrastinate(post.dsn, lambda _: post.count(1))
        async with app.open_async():
            working: list[asyncio.Task[None]] = []
            post.ready(lambda: loop.call_soon_threadsafe(working[0].cancel))
            await asyncio.to_thread(post.go.wait)
            running = app.run_worker_async(concurrency=post.batch, install_signal_handlers=False)
            working.append(asyncio.create_task(running))
            with suppress(asyncio.CancelledError):
                await working[0]

    asyncio.run(main())


def take_procrastinate(dsn: str, desk: Desk) -> None:
    """The same, as they come."""

    async def main() -> None:
        app = _procrastinate(dsn, desk.take)
        async with app.open_async():
            asyncio.get_running_loop().call_later(1, desk.open)
            await app.run_worker_async(concurrency=AT_ONCE, install_signal_handlers=False)

    asyncio.run(main())


@asynccontextmanager
async def procrastinate_sends(dsn: str) -> AsyncIterator[Append]:
    """`await task.defer_async()`."""
    append, close = await Procrastinate().start(dsn, SIZE)
    try:
        yield lambda payload: append(QUEUE, payload)
    finally:
        await close()


def work_pgqueuer(post: Post) -> None:
    """`await queuer.run(batch_size=...)` (its manual, "Consumer")."""

    async def main() -> None:
        from pgqueuer import PgQueuer
        from pgqueuer.db import AsyncpgPoolDriver

        loop = asyncio.get_running_loop()
        async with await asyncpg_pool(post.dsn, 4) as pool:
            queuer = PgQueuer(AsyncpgPoolDriver(pool))

            @queuer.entrypoint(QUEUE)
            async def work(job: Any) -> None:
                post.count(1)

            post.ready(lambda: loop.call_soon_threadsafe(queuer.shutdown.set))
            await asyncio.to_thread(post.go.wait)
            await queuer.run(batch_size=post.batch)

    asyncio.run(main())


async def _pgmq(dsn: str) -> tuple[Any, Any]:
    from pgmq.async_queue import PGMQueue

    pool = await asyncpg_pool(dsn, 1)
    queue: Any = PGMQueue(pool=pool, init_extension=False, vt=VISIBLE_AFTER)
    await queue.init()
    return queue, pool


def work_pgmq(post: Post) -> None:
    """`await queue.read()`, `await queue.delete_batch()`. What is read is counted, and comes again unless deleted."""

    async def main() -> None:
        queue, pool = await _pgmq(post.dsn)
        post.ready()
        await asyncio.to_thread(post.go.wait)
        while messages := await queue.read_batch(QUEUE, batch_size=post.batch):
            await queue.delete_batch(QUEUE, [message.msg_id for message in messages])
            post.count(len(messages))
        await pool.close()

    asyncio.run(main())


def take_pgmq(dsn: str, desk: Desk) -> None:
    """`await queue.read_with_poll()`, which looks every 100 ms unless told otherwise."""

    async def main() -> None:
        queue, _ = await _pgmq(dsn)
        desk.open()
        while True:
            for message in (messages := await queue.read_with_poll(QUEUE, qty=100) or []):
                desk.take(message.message["payload"])
            if messages:
                await queue.delete_batch(QUEUE, [message.msg_id for message in messages])

    asyncio.run(main())


@asynccontextmanager
async def pgmq_sends(dsn: str) -> AsyncIterator[Append]:
    """`await queue.send()`."""
    append, close = await Pgmq().start(dsn, SIZE)
    try:
        yield lambda payload: append(QUEUE, payload)
    finally:
        await close()
