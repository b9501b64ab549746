"""One subscription of a hub.

Where the burst is longer than a subscription's buffer by default, this is asked for a larger one: what is measured
is how fast it receives, and not when it would rather report a gap.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

import pgpubsub
from bench.contestants import Arrival
from bench.on_loop import LoopReceiver, new_uvloop

__all__ = ["AsyncHub", "AsyncHubOnUvloop", "Hub"]

CAPACITY = 10_000


class AsyncHub(LoopReceiver):
    """`async for event in events`."""

    async def start(self, dsn: str, channel: str) -> None:
        self._hub = await pgpubsub.AsyncHub(dsn).__aenter__()
        self._events = await self._hub.subscribe(channel, capacity=CAPACITY).__aenter__()

    async def take(self, count: int) -> Arrival:
        async for event in self._events:
            if isinstance(event, pgpubsub.Gap):
                raise AssertionError(event)
            pid, channel, payload = event
            count -= 1
            if not count:
                break
        return Arrival(pid, channel, payload, monotonic_ns())

    def fileno(self) -> int:
        return _socket_of(self._hub)

    async def stop(self) -> None:
        await self._hub.close()


class AsyncHubOnUvloop(AsyncHub):
    """The same on uvloop."""

    new_loop = staticmethod(new_uvloop)


class Hub:
    """`for event in events`."""

    def open(self, dsn: str, channel: str) -> None:
        self._hub = pgpubsub.Hub(dsn).__enter__()
        self._events = self._hub.subscribe(channel, capacity=CAPACITY).__enter__()

    def receive(self, count: int) -> Arrival:
        for event in self._events:
            if isinstance(event, pgpubsub.Gap):
                raise AssertionError(event)
            pid, channel, payload = event
            count -= 1
            if not count:
                break
        return Arrival(pid, channel, payload, monotonic_ns())

    def fileno(self) -> int:
        return _socket_of(self._hub)

    def close(self) -> None:
        self._hub.close()


def _socket_of(hub: pgpubsub.AsyncHub | pgpubsub.Hub) -> int:
    connection: Any = hub._engine._listening.connection
    return int(connection._wire.fd)
