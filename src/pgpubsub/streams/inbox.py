"""Where a reader puts what it has read, for whoever has it to take out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pgpubsub.core.buffer import Buffer
from pgpubsub.core.pages import Pages
from pgpubsub.core.position import Position
from pgpubsub.core.reading import Batch
from pgpubsub.errors import SubscriptionClosed
from pgpubsub.events import Gap, Notify
from pgpubsub.hubs.mailbox import Decoders, Mailbox
from pgpubsub.streams.rows import event, size

__all__ = ["Hinted", "Inbox"]

FEW = 2000
"""Entries that are left when the next page is read,"""

LONG = 1 << 20
"""unless those of the last had more bytes than this: then none are."""


class Hinted(Mailbox):
    """A mailbox that takes notifications, and gaps between them, as hints to look into the stream. To be mixed with one
    that somebody waits for."""

    on_hint: Callable[[], object]
    own_pid: Callable[[], int | None]
    """Of the server process that sends this hub's hints: its readers are told of its appends without any."""
    on_gap: Callable[[], object]
    on_low: Callable[[], None]
    on_end: Callable[[], object]

    def __init__(self, buffer: Buffer | Pages, types: Decoders) -> None:
        # Who knows what to do then comes later, and lives no longer.
        self.on_hint = self.on_gap = self.on_low = self.on_end = self.own_pid = lambda: None
        super().__init__(buffer, types)

    def put(self, events: Sequence[Notify], size: int) -> None:
        own_pid = self.own_pid()
        if any(event.pid != own_pid for event in events):
            self.on_hint()

    def report(self, gap: Gap) -> None:
        self.on_gap()

    def is_crowded(self) -> bool:
        return False

    def end(self, why: Exception) -> None:
        super().end(why)
        self.on_end()

    def deliver(self, events: Sequence[Any], size: int) -> None:
        """Put in what is to be taken out."""
        super().put(events, size)

    def deliver_gap(self, gap: Gap) -> None:
        """Put in a gap of the stream's."""
        super().report(gap)


class Inbox(Hinted):
    """That of a reader."""

    not_open = SubscriptionClosed(
        "the reader is not open: use it in a with statement, `with stream.read(...) as reader`"
    )

    standing: Callable[[], Position | None]
    """Where its reader stands, between two batches."""

    def __init__(self, types: Decoders) -> None:
        self.standing = lambda: None
        super().__init__(Pages(FEW, LONG, lambda: self.on_low()), types)

    @property
    def has_enough(self) -> bool:
        """Whether it is not time yet to read on."""
        return bool(self.buffer.has_enough)

    def on_read(self, rows: Sequence[Any], batch: Batch) -> None:
        """Put in the entries that were read."""
        if rows:
            self.deliver([event(row, batch) for row in rows], sum([size(row) for row in rows]))
