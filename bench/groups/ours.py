"""Who handles entries with pgpubsub: a consumer of a hub."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pgpubsub
from bench.carrying import Desk
from bench.ground import QUEUE
from bench.groups.crew import Post
from bench.groups.ways import GROUP

__all__ = ["consume", "consume_async", "take", "take_async", "take_one_by_one"]

# A batch has a length, and a delivery is one entry. There are no gaps here.


def consume_async(post: Post, *, tasks: int = 1, transactions: bool = False) -> None:
    """`async for delivery in consumer: async with delivery`, or `async with batch.transaction()`."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with pgpubsub.AsyncHub(post.dsn) as hub, AsyncExitStack() as stack:
            stream = hub.stream(QUEUE)
            consumer = stream.consume(GROUP) if post.batch == 1 else stream.consume(GROUP, batch=post.batch)
            await stack.enter_async_context(consumer)
            post.ready(lambda: loop.call_soon_threadsafe(consumer.close))

            async def handle() -> None:
                async for handed in consumer:
                    assert not isinstance(handed, pgpubsub.Gap), handed
                    async with handed.transaction() if transactions else handed:
                        pass
                    post.count(len(handed) if isinstance(handed, pgpubsub.AsyncBatch) else 1)

            await asyncio.gather(*[handle() for _ in range(tasks)])

    asyncio.run(main())


def consume(post: Post) -> None:
    """`for delivery in consumer: with delivery`."""
    with pgpubsub.Hub(post.dsn) as hub:
        stream = hub.stream(QUEUE)
        with stream.consume(GROUP) if post.batch == 1 else stream.consume(GROUP, batch=post.batch) as consumer:
            post.ready(consumer.close)
            for handed in consumer:
                assert not isinstance(handed, pgpubsub.Gap), handed
                with handed:
                    pass
                post.count(len(handed) if isinstance(handed, pgpubsub.Batch) else 1)


def take_async(dsn: str, desk: Desk) -> None:
    """`async for batch in consumer: async with batch`, with up to 100 in a batch."""

    async def main() -> None:
        async with pgpubsub.AsyncHub(dsn) as hub, hub.stream(QUEUE).consume(GROUP, batch=100) as consumer:
            desk.open()
            async for batch in consumer:
                assert not isinstance(batch, pgpubsub.Gap), batch
                async with batch:
                    for entry in batch:
                        desk.take(str(entry.payload))

    asyncio.run(main())


def take(dsn: str, desk: Desk) -> None:
    """`for batch in consumer: with batch`, likewise."""
    with pgpubsub.Hub(dsn) as hub, hub.stream(QUEUE).consume(GROUP, batch=100) as consumer:
        desk.open()
        for batch in consumer:
            assert not isinstance(batch, pgpubsub.Gap), batch
            with batch:
                for entry in batch:
                    desk.take(str(entry.payload))


def take_one_by_one(dsn: str, desk: Desk, *, tasks: int) -> None:
    """`async for delivery in consumer: async with delivery`, in so many tasks."""

    async def main() -> None:
        async with pgpubsub.AsyncHub(dsn) as hub, hub.stream(QUEUE).consume(GROUP) as consumer:
            desk.open()

            async def handle() -> None:
                async for delivery in consumer:
                    assert not isinstance(delivery, pgpubsub.Gap), delivery
                    async with delivery:
                        desk.take(str(delivery.payload))

            await asyncio.gather(*[handle() for _ in range(tasks)])

    asyncio.run(main())
