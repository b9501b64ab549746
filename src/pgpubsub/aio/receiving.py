"""How tasks receive: the one protocol of all that has events to deliver."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Any, Generic, Self

from pgpubsub.core.buffer import Buffer
from pgpubsub.core.pages import Pages
from pgpubsub.core.timeouts import check_timeout
from pgpubsub.errors import ConcurrentUse, SubscriptionClosed
from pgpubsub.events import Event, Gap
from pgpubsub.hubs.engine import OTHER_LOOP
from pgpubsub.hubs.mailbox import Decoders, Mailbox

__all__ = ["IN_A_ROW", "AsyncMailbox", "AsyncReceiver"]

IN_A_ROW = 4096
"""Events handed out without letting other tasks run, when there are so many. It is more than one reading of the socket
brings, or a subscriber could never keep up with a flood, however quick it is."""


class AsyncMailbox(Mailbox):
    """A mailbox that tasks wait for."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self, buffer: Buffer | Pages, types: Decoders) -> None:
        super().__init__(buffer, types)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None

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
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            raise ConcurrentUse(OTHER_LOOP)
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self.wake(1)  # what we were woken for is somebody else's now
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            raise

    def check_thread(self) -> None:
        """Raise if its loop runs, and this is another thread: who waits there would not be woken."""
        loop = self._loop
        if self.closed is None and loop is not None and loop.is_running() and asyncio._get_running_loop() is not loop:
            raise ConcurrentUse(OTHER_LOOP)

    def decoded(self, event: Any) -> Any:
        """What was taken out, as the subscriber gets it. It is put back when that is interrupted."""
        try:
            return self.types.decoded(event)
        except BaseException:
            self.give_back(event)
            raise

    def give_back(self, event: Any) -> None:
        """Whoever took `event` does not need it."""
        self.buffer.restore(event)
        self.wake(1)


class AsyncReceiver(Generic[Event]):
    """Events in order, for any number of tasks: each event goes to one of them. A task that is cancelled, or leaves its
    loop, takes nothing from the others."""

    __slots__ = ("__weakref__", "_in_a_row", "_mailbox")

    def __init__(self, mailbox: AsyncMailbox) -> None:
        self._mailbox = mailbox
        self._in_a_row = 0

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Deliver nothing more, and drop what is buffered. May be repeated. Does not wait.

        Raises:
            ConcurrentUse: called outside of its event loop while that runs, such as from another thread.
        """
        raise NotImplementedError

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event | Gap:
        """The next event. The iteration ends when it, or its hub, is closed.

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
            SubscriptionClosed: it, or its hub, is closed, or it was not entered.
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
