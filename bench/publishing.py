"""Who sends one notification after the other, each committed before the next: what all who do have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic_ns
from typing import TypeAlias

__all__ = ["AsyncNotify", "BlockingPublisher", "LoopPublisher", "Notify"]

Notify: TypeAlias = tuple[Callable[[str, str], object], Callable[[], object]]
"""How to notify a channel, and how to disconnect."""
AsyncNotify: TypeAlias = tuple[Callable[[str, str], Awaitable[object]], Callable[[], Awaitable[object]]]


class BlockingPublisher:
    """A `Publisher` by a function."""

    def open(self, dsn: str, channel: str) -> None:
        self._channel = channel
        self._notify, self._close = self.start(dsn)

    def start(self, dsn: str) -> Notify:
        """Connect."""
        raise NotImplementedError

    def publish(self, payload: str, times: int) -> list[int]:
        notify, channel, took = self._notify, self._channel, []
        for _ in range(times):
            begun = monotonic_ns()
            notify(channel, payload)
            took.append(monotonic_ns() - begun)
        return took

    def close(self) -> None:
        self._close()


class LoopPublisher:
    """A `Publisher` by a coroutine function, on asyncio's own loop."""

    new_loop = staticmethod(asyncio.new_event_loop)

    def open(self, dsn: str, channel: str) -> None:
        self._channel = channel
        self._loop = self.new_loop()
        self._notify, self._close = self._loop.run_until_complete(self.start(dsn))

    async def start(self, dsn: str) -> AsyncNotify:
        """Connect."""
        raise NotImplementedError

    def publish(self, payload: str, times: int) -> list[int]:
        return self._loop.run_until_complete(self._publish(payload, times))

    async def _publish(self, payload: str, times: int) -> list[int]:
        notify, channel, took = self._notify, self._channel, []
        for _ in range(times):
            begun = monotonic_ns()
            await notify(channel, payload)
            took.append(monotonic_ns() - begun)
        return took

    def close(self) -> None:
        async def close() -> None:
            await self._close()

        self._loop.run_until_complete(close())
        self._loop.close()
