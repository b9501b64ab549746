"""Subscribers that do nothing but count, with the buffer that they get by default, while much arrives in a row."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing

import pgpubsub
from bench.contestants import Counter
from bench.ground import CHANNEL, Ground
from bench.rounds import Figures
from bench.sender import Bursts

__all__ = ["AsyncHub", "Hub", "flood", "losing"]

LENGTH = 20


class AsyncHub:
    """`async for event in events`."""

    def open(self, dsn: str, channel: str) -> None:
        self._runner = asyncio.Runner()
        self._runner.run(self._open(dsn, channel))

    async def _open(self, dsn: str, channel: str) -> None:
        self._hub = await pgpubsub.AsyncHub(dsn).__aenter__()
        self._events = await self._hub.subscribe(channel).__aenter__()

    def count_lost(self, expected: int) -> int:
        return self._runner.run(self._count_lost(expected))

    async def _count_lost(self, expected: int) -> int:
        lost = 0
        async for event in self._events:
            missing = _missing(event)
            lost += missing
            expected -= missing or 1
            if not expected:
                break
        return lost

    def close(self) -> None:
        self._runner.run(self._hub.close())
        self._runner.close()


class Hub:
    """`for event in events`."""

    def open(self, dsn: str, channel: str) -> None:
        self._hub = pgpubsub.Hub(dsn).__enter__()
        self._events = self._hub.subscribe(channel).__enter__()

    def count_lost(self, expected: int) -> int:
        lost = 0
        for event in self._events:
            missing = _missing(event)
            lost += missing
            expected -= missing or 1
            if not expected:
                break
        return lost

    def close(self) -> None:
        self._hub.close()


def _missing(event: pgpubsub.Notify | pgpubsub.Gap) -> int:
    if isinstance(event, pgpubsub.Gap):
        assert event.count, event
        return event.count
    return 0


def flood(make: Callable[[], Counter], ground: Ground) -> list[float]:
    """Which share of the notifications the subscriber is told to have missed, in percent."""
    burst, times = ground.effort.burst, ground.effort.flooding_bursts
    counter = make()
    counter.open(ground.dsn, CHANNEL)
    with closing(counter):
        ground.sender.begin(Bursts(CHANNEL, burst, times, LENGTH))
        lost = counter.count_lost(burst * times)
        ground.sender.finish()
    return [100 * lost / (burst * times)]


def losing(samples: Sequence[float]) -> Figures:
    """The mean, in percent."""
    return {"lost_percent": sum(samples) / len(samples)}
