"""Who sends with a hub, one notification after the other."""

from __future__ import annotations

import pgpubsub
from bench.on_loop import new_uvloop
from bench.publishing import AsyncNotify, BlockingPublisher, LoopPublisher, Notify

__all__ = ["AsyncHub", "AsyncHubOnUvloop", "Hub"]


class Hub(BlockingPublisher):
    """`hub.notify()`."""

    def start(self, dsn: str) -> Notify:
        hub = pgpubsub.Hub(dsn).__enter__()
        return hub.notify, hub.close


class AsyncHub(LoopPublisher):
    """`await hub.notify()`."""

    async def start(self, dsn: str) -> AsyncNotify:
        hub = await pgpubsub.AsyncHub(dsn).__aenter__()
        return hub.notify, hub.close


class AsyncHubOnUvloop(AsyncHub):
    """The same on uvloop."""

    new_loop = staticmethod(new_uvloop)
