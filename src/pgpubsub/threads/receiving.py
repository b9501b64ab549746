"""How threads receive: the one protocol of all that has events to deliver."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Generic, Self

from pgpubsub.core.buffer import Buffer
from pgpubsub.core.pages import Pages
from pgpubsub.core.timeouts import check_timeout
from pgpubsub.errors import ConcurrentUse, SubscriptionClosed
from pgpubsub.events import Event, Gap, Notify
from pgpubsub.hubs.mailbox import Decoders, Mailbox
from pgpubsub.status import SubscriptionStats

__all__ = ["Receiver", "ThreadMailbox"]


MOMENTS = 20
"""How often a subscriber is given a moment without taking anything: waking a thread may take longer than one."""


class ThreadMailbox(Mailbox):
    """A mailbox that threads wait for, and that the hub's thread fills.

    Its lock is held for moments only, and never while anybody waits. It is a plain lock, entered by `with`, and not
    a `Condition`, since a signal handler that raises can leave that one locked for ever.
    """

    __slots__ = ("_credit", "_filled_by", "_waiting", "lock")

    def __init__(self, buffer: Buffer | Pages, types: Decoders) -> None:
        super().__init__(buffer, types)
        self.lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._filled_by: threading.Thread | None = None  # not its number, which another gets when it has ended
        self._credit = 0

    def open(self) -> None:
        super().open()
        self._filled_by = threading.current_thread()

    def put(self, events: Sequence[Notify], size: int) -> None:
        with self.lock:
            super().put(events, size)

    def is_crowded(self) -> bool:
        if not self._credit or len(self.buffer) <= self.buffer.capacity // 4:
            return False
        self._credit -= 1
        return True

    def report(self, gap: Gap) -> None:
        with self.lock:
            super().report(gap)

    def end(self, why: Exception) -> None:
        with self.lock:
            super().end(why)

    def forget(self, channel: str) -> None:
        with self.lock:
            super().forget(channel)

    def discard(self) -> None:
        with self.lock:
            super().discard()

    def stats(self) -> SubscriptionStats:
        with self.lock:
            return super().stats()

    def disown(self, error: Exception) -> None:
        self.lock = threading.Lock()  # whoever held the other is not in this process
        super().disown(error)

    def is_free(self, patience: float) -> bool:
        """Whether nobody holds the lock for longer than `patience` seconds."""
        deadline = monotonic() + patience
        while self.lock.locked():  # acquiring it would leave it locked if a signal handler raised just then
            if monotonic() >= deadline:
                return False
            sleep(0.001)
        return True

    def wake(self, count: int | None) -> None:
        for _ in range(len(self._waiting) if count is None else min(count, len(self._waiting))):
            self._waiting.popleft().release()
            self._credit = MOMENTS

    def get_nowait(self) -> Any:
        """As `take`, for threads, and decoded."""
        event: Any = None
        try:
            with self.lock:
                event = self.take()
                channel = self.types.of(event) if self.types else None
            return event if channel is None else channel.decode(event)
        except BaseException:
            self._give_back(event, None)
            raise

    def get(self, deadline: float | None) -> Any:
        """Wait for the next event until `deadline`, and decode it. Raises `TimeoutError`, and what `take` raises."""
        event: Any = None
        waiter = None
        try:
            while True:
                late = deadline is not None and monotonic() >= deadline
                with self.lock:
                    event = self.take()
                    channel = self.types.of(event) if self.types else None  # now, as it may be forgotten in a moment
                    self._credit = MOMENTS
                    if waiter is not None and waiter in self._waiting:  # it was not woken
                        self._waiting.remove(waiter)
                        waiter = None
                    if event is None and not late:
                        waiter = threading.Lock()
                        waiter.acquire()
                        self._waiting.append(waiter)
                if event is not None:
                    return event if channel is None else channel.decode(event)
                if late:
                    raise TimeoutError("there was no event in time")
                if threading.current_thread() is self._filled_by:
                    raise ConcurrentUse(
                        "the hub's own thread cannot wait for events: its observer must only take notes"
                    )
                assert waiter is not None
                waiter.acquire(timeout=-1 if deadline is None else max(0.0, deadline - monotonic()))
        except BaseException:
            self._give_back(event, waiter)
            raise

    def _give_back(self, event: Notify | Gap | None, waiter: threading.Lock | None) -> None:
        """Whoever got `event`, or was to be woken by `waiter` and perhaps has been, does not need it."""
        with self.lock:
            if event is not None:
                self.buffer.restore(event)
            if waiter is not None and waiter in self._waiting:
                self._waiting.remove(waiter)
            elif event is not None or waiter is not None:
                self.wake(1)


class Receiver(Generic[Event]):
    """Events in order, for any number of threads: each event goes to one of them. A thread that leaves its loop takes
    nothing from the others."""

    def __init__(self, mailbox: ThreadMailbox) -> None:
        self._mailbox = mailbox
        self._closed = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Deliver nothing more, and drop what is buffered. May be repeated. Does not wait, and ends the waiting of
        other threads."""
        raise NotImplementedError

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event | Gap:
        """The next event. The iteration ends when it, or its hub, is closed.

        Raises:
            SubscriberTooSlow: its buffer was full and its policy is `close`.
            GaveUp: the hub has given up.
        """
        if self._closed:
            raise StopIteration
        try:
            event: Event | Gap = self._mailbox.get(None)
            return event
        except SubscriptionClosed as closed:
            if self._mailbox.ended:
                raise StopIteration from None
            raise closed

    def get(self, timeout: float | None = None) -> Event | Gap:
        """Wait for the next event, at most `timeout` seconds (None: for ever).

        Raises:
            TimeoutError: there was none.
            SubscriptionClosed: it, or its hub, is closed, or it was not entered.
            SubscriberTooSlow, GaveUp: as in an iteration.
        """
        timeout = check_timeout(timeout)
        event: Event | Gap = self._open().get(None if timeout is None else monotonic() + timeout)
        return event

    def get_nowait(self) -> Event | Gap | None:
        """The next event, or None when there is none yet. Raises as `get`."""
        event: Event | Gap | None = self._open().get_nowait()
        return event

    def _open(self) -> ThreadMailbox:
        if self._closed:
            raise SubscriptionClosed("it was closed")
        return self._mailbox
