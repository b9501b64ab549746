"""Who begins to listen to many channels at once with a hub, for a consumer of each."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack

import pgpubsub

__all__ = ["AsyncHub", "Hub"]


class AsyncHub:
    """A task for each."""

    def open(self, dsn: str) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._hub = self._runner.run(self._stack.enter_async_context(pgpubsub.AsyncHub(dsn)))

    def enter(self, channels: list[str]) -> None:
        self._runner.run(self._enter(channels))

    async def _enter(self, channels: list[str]) -> None:
        await asyncio.gather(*[self._stack.enter_async_context(self._hub.subscribe(name)) for name in channels])

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()


class Hub:
    """A thread for each."""

    def open(self, dsn: str) -> None:
        self._stack = ExitStack()
        self._hub = self._stack.enter_context(pgpubsub.Hub(dsn))

    def enter(self, channels: list[str]) -> None:
        with ThreadPoolExecutor(len(channels)) as threads:
            list(threads.map(lambda name: self._stack.enter_context(self._hub.subscribe(name)), channels))

    def close(self) -> None:
        self._stack.close()
