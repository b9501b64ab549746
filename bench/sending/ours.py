"""Who is called by many at once, with a hub."""

from __future__ import annotations

import pgpubsub
from bench.callers import ByTasks, ByThreads
from bench.on_loop import new_uvloop
from bench.publishing import AsyncNotify, Notify

__all__ = ["AsyncHub", "AsyncHubOnUvloop", "Hub"]


class AsyncHub(ByTasks):
    """`await hub.notify()`."""

    async def start(self, dsn: str, size: int) -> AsyncNotify:
        hub = await pgpubsub.AsyncHub(dsn).__aenter__()
        return hub.notify, hub.close


class AsyncHubOnUvloop(AsyncHub):
    """The same on uvloop."""

    new_loop = staticmethod(new_uvloop)


class Hub(ByThreads):
    """`hub.notify()`."""

    def start(self, dsn: str, size: int) -> Notify:
        hub = pgpubsub.Hub(dsn).__enter__()
        return hub.notify, hub.close
