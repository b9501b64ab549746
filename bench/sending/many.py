"""Who sends many notifications in one transaction."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from contextlib import closing
from time import monotonic_ns, process_time_ns
from typing import Protocol

import pgpubsub
from bench.ground import CHANNEL, Ground
from bench.sending.audience import audience
from bench.turns import Cost

__all__ = ["AsyncHub", "Hub", "Many", "send_many"]

WARM_UP = 100


class Many(Protocol):
    """Sends many at once."""

    def open(self, dsn: str) -> None:
        """Connect."""

    def send(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Send them in one transaction; return when it is committed."""

    def close(self) -> None:
        """Close the connection."""


def send_many(make: Callable[[], Many], ground: Ground) -> list[Cost]:
    """What each notification takes. Payloads have 40 bytes and are different."""
    listeners = audience(ground)
    pairs = [(CHANNEL, f"{number:x>40}") for number in range(ground.effort.many)]
    many = make()
    gc.collect()
    many.open(listeners.dsn)
    with closing(many):
        for _ in range(6):  # after the fifth, psycopg has it prepared
            many.send(pairs[:WARM_UP])
        cpu_before, start = process_time_ns(), monotonic_ns()
        many.send(pairs)
        wall, cpu = monotonic_ns() - start, process_time_ns() - cpu_before
    listeners.expect(len(pairs) + 6 * WARM_UP)
    return [Cost(wall / len(pairs), cpu / len(pairs))]


class AsyncHub:
    """`await hub.notify_many()`."""

    def open(self, dsn: str) -> None:
        self._runner = asyncio.Runner()
        self._hub = self._runner.run(pgpubsub.AsyncHub(dsn).__aenter__())

    def send(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._runner.run(self._hub.notify_many(pairs))

    def close(self) -> None:
        self._runner.run(self._hub.close())
        self._runner.close()


class Hub:
    """`hub.notify_many()`."""

    def open(self, dsn: str) -> None:
        self._hub = pgpubsub.Hub(dsn).__enter__()

    def send(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._hub.notify_many(pairs)

    def close(self) -> None:
        self._hub.close()
