"""Who appends for many at once, with a hub: one call for one entry, which is committed when that returns."""

from __future__ import annotations

import pgpubsub
from bench.callers import ByTasks, ByThreads
from bench.ground import QUEUE
from bench.publishing import AsyncNotify, Notify

__all__ = ["AsyncHub", "Hub"]

# Each call has a channel, by which the stream might be chosen, and a payload. There is one stream here.


class AsyncHub(ByTasks):
    """`await stream.append()`."""

    async def start(self, dsn: str, size: int) -> AsyncNotify:
        hub = await pgpubsub.AsyncHub(dsn).__aenter__()
        stream = hub.stream(QUEUE)
        return lambda _, payload: stream.append(payload), hub.close


class Hub(ByThreads):
    """`stream.append()`."""

    def start(self, dsn: str, size: int) -> Notify:
        hub = pgpubsub.Hub(dsn).__enter__()
        stream = hub.stream(QUEUE)
        return lambda _, payload: stream.append(payload), hub.close
