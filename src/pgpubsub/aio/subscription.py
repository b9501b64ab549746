"""What one asynchronous subscriber sees."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Any, Generic, Self

from pgpubsub.channel import Channel, Types, name_of
from pgpubsub.core.buffer import Overflow
from pgpubsub.core.timeouts import check_timeout
from pgpubsub.errors import ConcurrentUse, SubscriptionClosed
from pgpubsub.events import Event, Gap, Notify
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

    def decoded(self, event: Any) -> Any:
        """What was taken out, as the subscriber gets it. It is put back when that is interrupted."""
        try:
            return self.types.decoded(event)
        except BaseException:
            self.give_back(event)
            raise

    def give_back(self, event: Notify | Gap) -> None:
        """Whoever took `event` does not need it."""
        self.buffer.restore(event)
        self.wake(1)


class AsyncSubscription(Generic[Event]):
    """One subscriber's events, in order: what `AsyncHub.subscribe` returns.

    Enter it (`async with`), then iterate it or call `get`. Several tasks may do so: each event goes to one of them.
    A task that is cancelled, or leaves its loop, takes nothing from the others.

    Its type says what comes beside `Gap`: `AsyncSubscription[Notify[str]]` on plain names, which is the default, and
    `AsyncSubscription[Notify[Order] | Undecodable]` on a `Channel` of `Order`.
    """

    __slots__ = ("__weakref__", "_engine", "_in_a_row", "_initial", "_mailbox")

    def __init__(self, engine: Engine, channels: tuple[str | Channel[Any], ...], mailbox: AsyncMailbox) -> None:
        self._initial = [name_of(channel) for channel in channels]
        mailbox.types = Types(channels)
        self._engine = engine
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

    async def __anext__(self) -> Event | Gap:
        """The next event. The iteration ends when the subscription or its hub is closed.

        Raises:
            SubscriberTooSlow: its buffer was full and its policy is `close`.
            GaveUp: the hub has given up.
        """
        mailbox = self._mailbox
        taken: Any = mailbox.buffer.take()
        if taken is not None and self._in_a_row < IN_A_ROW:
            self._in_a_row += 1
            event: Event | Gap = mailbox.decoded(taken) if mailbox.types else taken
            return event
        try:
            return await self._next(taken)
        except SubscriptionClosed as closed:
            if mailbox.ended:
                raise StopAsyncIteration from None
            raise closed

    async def get(self, timeout: float | None = None) -> Event | Gap:
        """Wait for the next event, at most `timeout` seconds (None: for ever).

        Raises:
            TimeoutError: there was none.
            SubscriptionClosed: the subscription or its hub is closed, or it was not entered.
            SubscriberTooSlow, GaveUp: as in an iteration.
        """
        timeout = check_timeout(timeout)
        mailbox = self._mailbox
        taken: Any = mailbox.take()
        if taken is None:
            async with asyncio.timeout(timeout):
                return await self._next(None)
        if self._in_a_row < IN_A_ROW:
            self._in_a_row += 1
            event: Event | Gap = mailbox.decoded(taken) if mailbox.types else taken
            return event
        return await self._next(taken)

    def get_nowait(self) -> Event | Gap | None:
        """The next event, or None when there is none yet. Raises as `get`."""
        taken: Any = self._mailbox.take()
        event: Event | Gap | None = self._mailbox.decoded(taken) if self._mailbox.types else taken
        return event

    async def add(self, channel: str | Channel[Any]) -> None:
        """Subscribe to one more channel. Returns, and raises, as entering does; if it raises, nothing has changed.

        What it was given last as counts: a `Channel` gives what comes on it a type, a plain name takes that away. That
        holds for what is buffered too, which is decoded when it is taken.
        """
        with self._mailbox.types.learning(channel):
            await self._engine.add(self._mailbox, (name_of(channel),))

    async def remove(self, channel: str | Channel[Any]) -> None:
        """Unsubscribe from a channel. Nothing of it is received any more, not even what is buffered."""
        await self._engine.remove(self._mailbox, name_of(channel))

    def close(self) -> None:
        """Unsubscribe from everything and drop what is buffered. May be repeated. Does not wait."""
        self._engine.leave(self._mailbox, SubscriptionClosed("the subscription was closed"))

    async def _next(self, taken: Any) -> Event | Gap:
        """Let other tasks run; then what was taken, or the next one."""
        self._in_a_row = 0
        mailbox = self._mailbox
        event: Event | Gap
        if taken is None:
            while (found := mailbox.take()) is None:
                await mailbox.changed()
            event = mailbox.decoded(found)
            return event
        try:
            event = mailbox.types.decoded(taken) if mailbox.types else taken
            await asyncio.sleep(0)
        except BaseException:
            mailbox.give_back(taken)
            raise
        return event
