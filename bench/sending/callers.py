"""Many who send at once, each again as soon as its last notification is committed.

A turn opens what they call, has each of them call a few times, so that whatever is prepared or cached is, and then
counts the calls that are completed in a while. Payloads have 40 bytes, and all are different unless they are to be
equal.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from itertools import count, islice, repeat
from time import monotonic, monotonic_ns
from typing import NamedTuple, Protocol, TypeAlias

from bench.ground import CHANNEL, Ground
from bench.sending.audience import audience

__all__ = ["AsyncCall", "ByTasks", "ByThreads", "Call", "Called", "Calls", "call_at_once"]

WARM_UP = 2
"""Calls of each caller before the clock starts: over 16 connections, more on each than the
five after which psycopg prepares a statement."""

Call: TypeAlias = Callable[[str, str], object]
AsyncCall: TypeAlias = Callable[[str, str], Awaitable[object]]


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


def call_at_once(make: Callable[[], Called], size: int, ground: Ground, *, callers: int, equal: bool = False) -> float:
    """Completed calls per second, over `size` connections."""
    listeners = audience(ground)
    called = make()
    gc.collect()
    called.open(listeners.dsn, size)
    with closing(called):
        first = called.call(callers, 60, times=WARM_UP, equal=equal)
        listeners.expect(first.completed)
        calls = called.call(callers, ground.effort.calling_seconds, equal=equal)
    listeners.expect(calls.completed)
    return 1e9 * calls.completed / calls.took


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
        self._notify: AsyncCall
        self._close: Callable[[], Awaitable[object]]
        self._notify, self._close = self._runner.run(self.start(dsn, size))

    async def start(self, dsn: str, size: int) -> tuple[AsyncCall, Callable[[], Awaitable[object]]]:
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
        self._notify: Call
        self._close: Callable[[], object]
        self._notify, self._close = self.start(dsn, size)

    def start(self, dsn: str, size: int) -> tuple[Call, Callable[[], object]]:
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
