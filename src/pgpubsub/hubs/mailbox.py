"""Where a hub puts what one subscription is to receive. The subscription, asynchronous or blocking, takes it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypedDict

from pgpubsub.channel import Types
from pgpubsub.core.buffer import Buffer, Overflow
from pgpubsub.core.pages import Pages
from pgpubsub.errors import ConcurrentUse, SubscriberTooSlow, SubscriptionClosed, again
from pgpubsub.events import Gap, Notify
from pgpubsub.status import SubscriptionStats

__all__ = ["CAPACITY", "CAPACITY_BYTES", "Decoder", "Mailbox", "Options", "buffer", "now"]

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


def buffer(
    capacity: int, capacity_bytes: int, overflow: Overflow, complete_until: Callable[[], datetime] = now
) -> Buffer:
    """What holds a subscription's notifications."""
    return Buffer(capacity, capacity_bytes, overflow, complete_until)


class Decoder(Protocol):
    """What makes of an event what was sent."""

    def decode(self, event: Any, /) -> Any:
        """`event` with its payload decoded, or the `Undecodable` that it is."""


class Decoders(Protocol):
    """Which events have a decoder. It is false where none has."""

    def __len__(self) -> int: ...

    def of(self, event: Any, /) -> Decoder | None:
        """That of `event`, if it has one."""

    def decoded(self, event: Any, /) -> Any:
        """`event` as it is handed over."""


class Mailbox:
    """A buffer, whether more will come, and a way to wake whoever waits for it."""

    __slots__ = ("_opened", "buffer", "channels", "closed", "types")

    not_open = SubscriptionClosed(
        "the subscription is not open: use it in a with statement, `with hub.subscribe(...) as events`"
    )
    """Why nothing comes before it is entered."""

    def __init__(self, buffer: Buffer | Pages, types: Decoders) -> None:
        self.buffer: Any = buffer
        self.channels: set[str] = set()
        self.types = types
        """Of those events that are to be decoded. They are in the buffer as they came, and are decoded when they are
        handed over."""
        self.closed: Exception | None = self.not_open
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
        if isinstance(self.types, Types):
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
            self.closed is self.not_open or isinstance(self.closed, SubscriberTooSlow)
        )

    def take(self) -> Any:
        """The next event, or None when there is nothing yet. Raises the reason once nothing more will come."""
        event: Any = self.buffer.take()
        if event is None and self.closed is not None:
            raise again(self.closed)
        return event
