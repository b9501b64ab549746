"""Receivers that live in an event loop. It is entered and left once in each call, which is the same for all."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, TypeVar

from bench.contestants import Arrival

__all__ = ["LoopReceiver", "new_uvloop"]

T = TypeVar("T")


def new_uvloop() -> asyncio.AbstractEventLoop:
    """A loop of uvloop's."""
    import uvloop

    return uvloop.new_event_loop()


class LoopReceiver(ABC):
    """A `Receiver` as coroutines."""

    new_loop = staticmethod(asyncio.new_event_loop)
    """Makes the loop: asyncio's own."""

    def open(self, dsn: str, channel: str) -> None:
        self._loop = self.new_loop()
        self._run(self.start(dsn, channel))

    def receive(self, count: int) -> Arrival:
        return self._run(self.take(count))

    def idle(self) -> None:
        """Let the loop run, for ever."""
        self._loop.run_forever()

    def close(self) -> None:
        self._run(self.stop())
        self._run(self._settle())
        self._run(self._loop.shutdown_asyncgens())
        self._loop.close()

    @abstractmethod
    async def start(self, dsn: str, channel: str) -> None:
        """See `Receiver.open`."""

    @abstractmethod
    async def take(self, count: int) -> Arrival:
        """See `Receiver.receive`."""

    @abstractmethod
    def fileno(self) -> int:
        """See `Receiver.fileno`."""

    @abstractmethod
    async def stop(self) -> None:
        """See `Receiver.close`."""

    async def _settle(self) -> None:
        """Wait for what others left to the loop, such as closing a connection."""
        await asyncio.sleep(0)
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(coroutine)
