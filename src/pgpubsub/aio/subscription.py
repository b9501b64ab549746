"""What one asynchronous subscriber sees."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

from pgpubsub.core.buffer import Overflow
from pgpubsub.core.sql import check_channel
from pgpubsub.core.timeouts import check_timeout
from pgpubsub.errors import ConcurrentUse, SubscriptionClosed
from pgpubsub.events import Gap, Notify
from pgpubsub.hubs.engine import OTHER_LOOP, Engine
from pgpubsub.hubs.mailbox import Mailbox
from pgpubsub.status import SubscriptionStats

__all__ = ["AsyncMailbox", "AsyncSubscription"]

IN_A_ROW = 4096
"""Events handed out without letting other tasks run, when there are so many. It is more than one reading of the socket
brings, or a subscriber could never keep up with a flood, however quick it is."""


class AsyncMailbox(Mailbox):
    """A mailbox that tasks wait for."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self, capacity: int, capacity_bytes: int, overflow: Overflow) -> None:
        super().__init__(capacity, capacity_bytes, overflow)
        self._waiting: deque[asyncio.Future[None]] = deque()

    def wake(self, count: int | None) -> None:
        while self._waiting and count != 0:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                if count is not None:
                    count -= 1

    def open(self) -> None:
        super().open()
        self._loop = asyncio.get_running_loop()

    async def changed(self) -> None:
        """Wait until something was put in, or the end came."""
        if asyncio.get_running_loop() is not self._loop:
            raise ConcurrentUse(OTHER_LOOP)
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self.wake(1)  # what we were woken for is somebody else's now
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            raise


class AsyncSubscription:
    """One subscriber's events, in order: what `AsyncHub.subscribe` returns.

    Enter it (`async with`), then iterate it or call `get`. Several tasks may do so: each event goes to one of them.
    A task that is cancelled, or leaves its loop, takes nothing from the others.
    """

    __slots__ = ("__weakref__", "_engine", "_in_a_row", "_initial", "_mailbox")

    def __init__(self, engine: Engine, channels: tuple[str, ...], mailbox: AsyncMailbox) -> None:
        for channel in channels:
            check_channel(channel)
        self._engine = engine
        self._initial = channels
        self._mailbox = mailbox
        self._in_a_row = 0

    def __del__(self) -> None:
        if hasattr(self, "_mailbox"):
            self._engine.forsake(self._mailbox)

    def __repr__(self) -> str:
        state = "open" if self._mailbox.closed is None else "closed"
        return f"<{type(self).__name__} {sorted(self.channels)}, {state}, {len(self._mailbox.buffer)} buffered>"

    @property
    def channels(self) -> frozenset[str]:
        """What it is subscribed to at present."""
        return frozenset(self._mailbox.channels)

    def stats(self) -> SubscriptionStats:
        """This subscription in figures."""
        return self._mailbox.stats()

    async def __aenter__(self) -> Self:
        """Returns once the server listens to all its channels: what is sent from now on is delivered.

        Raises:
            NotLive: the server could not be reached within the hub's `send_timeout`.
            ServerRefused: it would not listen.
        """
        await self._engine.open(self._mailbox, self._initial)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Notify | Gap:
        """The next event. The iteration ends when the subscription or its hub is closed.

        Raises:
            SubscriberTooSlow: its buffer was full and its policy is `close`.
            GaveUp: the hub has given up.
        """
        event = self._mailbox.buffer.take()
        if event is not None and self._in_a_row < IN_A_ROW:
            self._in_a_row += 1
            return event
        try:
            return await self._next(event)
        except SubscriptionClosed as closed:
            if self._mailbox.ended:
                raise StopAsyncIteration from None
            raise closed

    async def get(self, timeout: float | None = None) -> Notify | Gap:
        """Wait for the next event, at most `timeout` seconds (None: for ever).

        Raises:
            TimeoutError: there was none.
            SubscriptionClosed: the subscription or its hub is closed, or it was not entered.
            SubscriberTooSlow, GaveUp: as in an iteration.
        """
        timeout = check_timeout(timeout)
        event = self._mailbox.take()
        if event is None:
            async with asyncio.timeout(timeout):
                return await self._next(None)
        if self._in_a_row < IN_A_ROW:
            self._in_a_row += 1
            return event
        return await self._next(event)

    def get_nowait(self) -> Notify | Gap | None:
        """The next event, or None when there is none yet. Raises as `get`."""
        return self._mailbox.take()

    async def add(self, channel: str) -> None:
        """Subscribe to one more channel. Returns, and raises, as entering does; if it raises, nothing has changed."""
        check_channel(channel)
        await self._engine.add(self._mailbox, (channel,))

    async def remove(self, channel: str) -> None:
        """Unsubscribe from a channel. Nothing of it is received any more, not even what is buffered."""
        check_channel(channel)
        await self._engine.remove(self._mailbox, channel)

    def close(self) -> None:
        """Unsubscribe from everything and drop what is buffered. May be repeated. Does not wait."""
        self._engine.leave(self._mailbox, SubscriptionClosed("the subscription was closed"))

    async def _next(self, event: Notify | Gap | None) -> Notify | Gap:
        """Let other tasks run; then `event`, or the next one."""
        self._in_a_row = 0
        mailbox = self._mailbox
        if event is None:
            while (event := mailbox.take()) is None:
                await mailbox.changed()
            return event
        try:
            await asyncio.sleep(0)
        except BaseException:
            mailbox.buffer.restore(event)
            mailbox.wake(1)
            raise
        return event
