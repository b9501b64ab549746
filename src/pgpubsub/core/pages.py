"""What a reader of a stream has read ahead, until somebody takes it.

Unlike `core.buffer`, nothing is ever dropped: the reader reads the next page when what is left of the last grows short,
or, where entries are long, when nothing is left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from pgpubsub.events import Entry, Gap, Undecodable

__all__ = ["Pages"]

Event = Entry[Any] | Undecodable | Gap


class Pages:
    """See the module. It has what `Buffer` has, for mailboxes. It is not safe between threads by itself.

    Args:
        few: when there are no more entries than this, it is time to read on,
        long: unless they were put in with more bytes than this.
        on_low: called when it is time.
    """

    __slots__ = ("_delivered", "_few", "_last", "_long", "_low", "_on_low", "_put", "_queue", "bytes", "gaps")

    dropped = 0
    overflowed = False

    def __init__(self, few: int, long: int, on_low: Callable[[], None]) -> None:
        self.gaps = 0
        """Gaps taken out."""
        self.bytes = 0
        """Bytes of payload that were put in last."""
        self._few = few
        self._long = long
        self._low = few
        self._last: Entry[Any] | None = None
        self._delivered = False  # and not put back
        self._put = 0
        self._on_low = on_low
        self._queue: deque[Event] = deque()

    def take(self) -> Event | None:
        """The oldest of what is there, or None.

        A signal handler that raises does so after calls: nothing is called between the end of the event's life in
        here and the return.
        """
        queue = self._queue
        if not queue:
            return None
        event: Any = queue[0]
        kind = event.__class__
        if len(queue) == self._low + 1:
            self._on_low()
        if kind is Gap:
            self.gaps += 1
        else:
            self._last = event if kind is Entry else event.event
            self._delivered = True
        del queue[0]
        taken: Event = event
        return taken

    def restore(self, event: Event) -> None:
        """Put back what was taken, and could not be handed over."""
        self._queue.appendleft(event)
        if isinstance(event, Gap):
            self.gaps -= 1
        else:
            entry: Any = event.event if isinstance(event, Undecodable) else event
            self._last = entry
            self._delivered = False

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def has_enough(self) -> bool:
        """Whether it is not time yet to read on. `on_low` will say when it is: not for an event in the midst of being
        taken out, for which it has been said already."""
        return len(self._queue) > self._low + 1

    @property
    def position(self) -> str | None:
        """Behind the entry that was taken out last, or before the one that was put back last; None before the first."""
        if self._last is None:
            return None
        return self._last.position if self._delivered else self._last.position_before()

    @property
    def delivered(self) -> int:
        """Entries taken out."""
        return self._put - sum(not isinstance(event, Gap) for event in self._queue)

    def put(self, events: Sequence[Event], size: int) -> None:
        """Put in entries, oldest first, with `size` bytes together."""
        self._put += len(events)
        self.bytes = size
        self._low = 0 if size > self._long else self._few
        self._queue.extend(events)

    def report(self, gap: Gap) -> None:
        """Put in a gap."""
        self._queue.append(gap)

    def forget(self, channel: str) -> None:
        """It has no channels."""

    def clear(self) -> None:
        """Drop everything: there is no reader any more."""
        self._put = self.delivered
        self._queue.clear()
