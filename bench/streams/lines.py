"""Who carries entries of a stream from this process to another, as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pgpubsub
from bench.carrying import Append, Desk, Sends
from bench.ground import QUEUE

__all__ = ["Way", "hub_sends", "take", "take_async"]


@dataclass(frozen=True)
class Way:
    """Who sends, by a DSN, and who takes what comes, for ever."""

    sends: Sends
    take: Callable[[str, Desk], None]


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
