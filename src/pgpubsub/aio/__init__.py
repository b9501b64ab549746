"""The hub's face for asyncio."""

from __future__ import annotations

from pgpubsub.aio.consumer import AsyncBatch, AsyncConsumer, AsyncDelivery
from pgpubsub.aio.hub import AsyncHub
from pgpubsub.aio.reader import AsyncReader
from pgpubsub.aio.stream import AsyncStream
from pgpubsub.aio.subscription import AsyncSubscription

__all__ = [
    "AsyncBatch",
    "AsyncConsumer",
    "AsyncDelivery",
    "AsyncHub",
    "AsyncReader",
    "AsyncStream",
    "AsyncSubscription",
]
