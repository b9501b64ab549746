"""What a reader of a stream has read ahead, until somebody takes it.

Unlike `core.buffer`, nothing is ever dropped: the reader reads the next page when what is left of the last grows short.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from pgpubsub.events import Entry, Gap

__all__ = ["Pages"]


class Pages:
    """See the module. It has what `Buffer` has, for mailboxes. It is not safe between threads by itself.

    Args:
        low: when there is no more than this, it is time to read on.
        on_low: called then.
    """

    __slots__ = ("_delivered", "_last", "_last_high", "_on_low", "_put", "_queue", "gaps", "low")

    dropped = 0
    overflowed = False

    def __init__(self, low: int, on_low: Callable[[], None]) -> None:
        self.low = low
        self.gaps = 0
        """Gaps taken out."""
        self._last: Entry | None = None
        self._delivered = False  # and not put back
        self._last_high = low + 1
        self._put = 0
        self._on_low = on_low
        self._queue: deque[Entry | Gap] = deque()

    def take(self) -> Entry | Gap | None:
        """The oldest of what is there, or None.

        A signal handler that raises does so after calls: nothing is called between the end of the event's life in
        here and the return.
        """
        queue = self._queue
        if not queue:
            return None
        event = queue[0]
        if event.__class__ is Gap:
            self.gaps += 1
        else:
            self._last = event  # type: ignore[assignment]  # an entry
            self._delivered = True
        if len(queue) == self._last_high:
            self._on_low()
        del queue[0]
        return event

    def restore(self, event: Entry | Gap) -> None:
        """Put back what was taken last, and could not be handed over."""
        self._queue.appendleft(event)
        if isinstance(event, Gap):
            self.gaps -= 1
        else:
            self._last = event
            self._delivered = False

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def position(self) -> str | None:
        """Behind the entry that was taken out last, or before the one that was put back last; None before the first."""
        if self._last is None:
            return None
        return self._last.position if self._delivered else self._last.position_before()

    @property
    def bytes(self) -> int:
        """Not counted: a page has a limit."""
        return 0

    @property
    def delivered(self) -> int:
        """Entries taken out."""
        return self._put - sum(isinstance(event, Entry) for event in self._queue)

    def put(self, events: Sequence[Entry], size: int) -> None:
        """Put in `events`, oldest first."""
        self._put += len(events)
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
