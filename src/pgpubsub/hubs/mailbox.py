"""Where a hub puts what one subscription is to receive. The subscription, asynchronous or blocking, takes it out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypedDict

from pgpubsub.channel import Types
from pgpubsub.core.buffer import Buffer, Overflow
from pgpubsub.errors import ConcurrentUse, SubscriberTooSlow, SubscriptionClosed, again
from pgpubsub.events import Gap, Notify
from pgpubsub.status import SubscriptionStats

__all__ = ["CAPACITY", "CAPACITY_BYTES", "Mailbox", "Options", "now"]

CAPACITY = 1000
CAPACITY_BYTES = 64 << 20


class Options(TypedDict, total=False):
    """What `subscribe` takes beside the channels."""

    capacity: int
    capacity_bytes: int
    overflow: Overflow


def now() -> datetime:
    """The time of day, as gaps tell it."""
    return datetime.now(UTC)


NOT_OPEN = SubscriptionClosed(
    "the subscription is not open: use it in a with statement, `with hub.subscribe(...) as events`"
)


class Mailbox:
    """A buffer, whether more will come, and a way to wake whoever waits for it."""

    __slots__ = ("_opened", "buffer", "channels", "closed", "types")

    def __init__(self, capacity: int, capacity_bytes: int, overflow: Overflow) -> None:
        self.buffer = Buffer(capacity, capacity_bytes, overflow, now)
        self.channels: set[str] = set()
        self.types = Types()
        """Those of its channels that have a type. What came on them is in the buffer as it came, and is decoded when
        it is handed over."""
        self.closed: Exception | None = NOT_OPEN
        """Why nothing more will come, when what is buffered has been taken."""
        self._opened = False

    # -- the hub's end

    def put(self, events: Sequence[Notify], size: int) -> None:
        """Put in notifications whose payloads have `size` bytes together."""
        if self.closed is not None:
            return
        self.buffer.put(events, size)
        if self.buffer.overflowed and self.closed is None:
            self.closed = SubscriberTooSlow(
                f"the subscription was closed: its buffer of {self.buffer.capacity} notifications was full, and its"
                " policy is 'close'"
            )
        self.wake(None if self.closed is not None else len(events))

    def is_crowded(self) -> bool:
        """Whether the subscriber seems to be at work, could need a moment to go on, and cannot get one by itself."""
        return False

    def report(self, gap: Gap) -> None:
        """Put in a gap."""
        if self.closed is None:
            self.buffer.report(gap)
            self.wake(1)

    def open(self) -> None:
        """From now on something may come. Once only: what was closed stays closed."""
        if self._opened:
            raise self.closed or ConcurrentUse("the subscription was entered before: each is for one with statement")
        self._opened = True
        self.closed = None

    def end(self, why: Exception) -> None:
        """Nothing more will come. The first reason counts."""
        if self.closed is None or not self._opened:
            self.closed = why
        self._opened = True
        self.wake(None)

    def disown(self, error: Exception) -> None:
        """After `fork()`, in the child: it is the parent's."""
        self.closed = error
        self.buffer.clear()

    def forget(self, channel: str) -> None:
        """Drop what came on `channel`, and its type."""
        self.buffer.forget(channel)
        self.types.pop(channel, None)

    def discard(self) -> None:
        """Drop everything."""
        self.buffer.clear()

    def wake(self, count: int | None) -> None:
        """Wake as many of those who wait as there may be something for; None: all."""
        raise NotImplementedError

    def stats(self) -> SubscriptionStats:
        """This subscription in figures."""
        buffer = self.buffer
        channels = tuple(sorted(self.channels))
        return SubscriptionStats(channels, buffer.delivered, buffer.dropped, buffer.gaps, len(buffer), buffer.bytes)

    # -- the subscription's end

    @property
    def ended(self) -> bool:
        """Whether it was open and has come to a regular end, at which an iteration ends too."""
        return isinstance(self.closed, SubscriptionClosed) and not (
            self.closed is NOT_OPEN or isinstance(self.closed, SubscriberTooSlow)
        )

    def take(self) -> Notify | Gap | None:
        """The next event, or None when there is nothing yet. Raises the reason once nothing more will come."""
        event = self.buffer.take()
        if event is None and self.closed is not None:
            raise again(self.closed)
        return event
