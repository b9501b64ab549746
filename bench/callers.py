"""Many who call at once, from tasks or threads, each again as soon as its last call is completed.

Payloads have 40 bytes, and all are different unless they are to be equal.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice, repeat
from time import monotonic, monotonic_ns
from typing import NamedTuple, Protocol

from bench.ground import CHANNEL
from bench.publishing import AsyncNotify, Notify

__all__ = ["POOL_SIZES", "WARM_UP", "ByTasks", "ByThreads", "Called", "Calls"]

WARM_UP = 2
"""Calls of each caller before the clock starts: over 16 connections, more on each than the
five after which psycopg prepares a statement."""


POOL_SIZES = (1, 4, 8, 16)
"""Numbers of connections that those with a pool try."""


class Calls(NamedTuple):
    """Those that were completed, and how many nanoseconds they took all together."""

    completed: int
    took: int


class Called(Protocol):
    """Sends for many callers."""

    @property
    def sizes(self) -> Sequence[int]:
        """Numbers of connections to send over, of which the best is looked for."""

    def open(self, dsn: str, size: int) -> None:
        """Connect."""

    def call(self, callers: int, seconds: float, *, times: int | None = None, equal: bool = False) -> Calls:
        """Have so many callers notify `CHANNEL` for so long, or so many times each."""

    def close(self) -> None:
        """Close the connections."""


def _payloads(caller: int, times: int | None, *, equal: bool) -> Iterator[str]:
    one = f"{'to everybody':x<40}"
    own = repeat(one) if equal else map(f"{caller:x<10}{{:030}}".format, count())
    return islice(own, times)


class ByTasks:
    """Called by tasks in one event loop, asyncio's own."""

    sizes: Sequence[int] = (1,)
    new_loop: Callable[[], asyncio.AbstractEventLoop] = staticmethod(asyncio.new_event_loop)

    def open(self, dsn: str, size: int) -> None:
        self._runner = asyncio.Runner(loop_factory=self.new_loop)
        self._notify, self._close = self._runner.run(self.start(dsn, size))

    async def start(self, dsn: str, size: int) -> AsyncNotify:
        """Connect; return how to notify and how to close."""
        raise NotImplementedError

    def call(self, callers: int, seconds: float, *, times: int | None = None, equal: bool = False) -> Calls:
        return self._runner.run(self._all(callers, seconds, times, equal))

    async def _all(self, callers: int, seconds: float, times: int | None, equal: bool) -> Calls:
        start = monotonic_ns()
        until = monotonic() + seconds
        each = [_payloads(caller, times, equal=equal) for caller in range(callers)]
        counts = await asyncio.gather(*[self._one(payloads, until) for payloads in each])
        return Calls(sum(counts), monotonic_ns() - start)

    async def _one(self, payloads: Iterator[str], until: float) -> int:
        notify, completed = self._notify, 0
        for payload in payloads:
            await notify(CHANNEL, payload)
            completed += 1
            if monotonic() >= until:
                break
        return completed

    def close(self) -> None:
        async def close() -> None:
            await self._close()

        self._runner.run(close())
        self._runner.close()


class ByThreads:
    """Called by threads."""

    sizes: Sequence[int] = (1,)

    def open(self, dsn: str, size: int) -> None:
        self._notify, self._close = self.start(dsn, size)

    def start(self, dsn: str, size: int) -> Notify:
        """Connect; return how to notify and how to close."""
        raise NotImplementedError

    def call(self, callers: int, seconds: float, *, times: int | None = None, equal: bool = False) -> Calls:
        counts: list[int] = []
        ready = threading.Barrier(callers + 1)
        each = [_payloads(caller, times, equal=equal) for caller in range(callers)]
        threads = [threading.Thread(target=self._one, args=(one, seconds, ready, counts), daemon=True) for one in each]
        for thread in threads:
            thread.start()
        ready.wait()
        start = monotonic_ns()
        for thread in threads:
            thread.join()
        took = monotonic_ns() - start
        assert len(counts) == callers, "a caller failed"
        return Calls(sum(counts), took)

    def _one(self, payloads: Iterator[str], seconds: float, ready: threading.Barrier, counts: list[int]) -> None:
        notify, completed = self._notify, 0
        ready.wait()
        until = monotonic() + seconds
        for payload in payloads:
            notify(CHANNEL, payload)
            completed += 1
            if monotonic() >= until:
                break
        counts.append(completed)

    def close(self) -> None:
        self._close()
