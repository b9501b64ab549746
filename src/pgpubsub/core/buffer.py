"""One subscriber's bounded buffer, and what happens when it is full.

Whoever reads the socket puts notifications in, whatever the subscriber does; the subscriber takes them out. What
does not fit goes by the policy that the subscriber chose, and stands in the stream as a `Gap` at the place where
it went. The policies:

    clear         everything buffered goes: a subscriber that fell behind reads its state anew and is up to date
    drop_oldest   the oldest go, one for one: the newest are worth most. What comes after a gap that was taken does not
                  go, or one that is always late would get gap after gap and nothing else
    latest        only the newest of each channel is kept, full or not, and no gap says so: chosen conflation
    close         the subscription ends there

It promises: never more than `capacity` notifications and `capacity_bytes` bytes of payload are held, apart from what
was taken and is put back, and from the one that comes after a gap; gaps are never dropped, but neighbours with the same
reason may become one, so that there are never many. It is not safe between threads by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from pgpubsub.core.sql import utf8_length
from pgpubsub.events import Gap, GapReason, Notify

__all__ = ["Buffer", "Overflow", "payload_bytes"]

Overflow = Literal["clear", "drop_oldest", "latest", "close"]


def payload_bytes(events: Iterable[Notify]) -> int:
    """Length of all their payloads, and headers if they have any, in bytes of UTF-8.

    >>> payload_bytes([Notify(1, "a", "é"), Notify(1, "a", "e")])
    3
    """
    # Most are ASCII, and are measured without calling a function for each.
    return sum([len(event[2]) if type(event) is Notify and event[2].isascii() else _size(event) for event in events])


def _size(event: Notify) -> int:
    return utf8_length(event[2]) + event._beside


@dataclass(slots=True)
class _Loss:
    """What goes into one gap, while it is still growing."""

    reason: GapReason
    channels: set[str]
    since: datetime
    count: int | None
    detail: str

    @classmethod
    def of(cls, gap: Gap) -> _Loss:
        return cls(gap.reason, set(gap.channels), gap.since, gap.count, gap.detail)

    def merge(self, gap: Gap) -> None:
        self.channels.update(gap.channels)
        self.since = min(self.since, gap.since)
        self.count = None if self.count is None or gap.count is None else self.count + gap.count
        self.detail = gap.detail

    def as_gap(self) -> Gap:
        return Gap(self.reason, tuple(sorted(self.channels)), self.since, self.count, self.detail)


def _join(queue: deque[Notify | Gap], gap: Gap) -> bool:
    """Make `gap` one with the last of its reason in `queue`, if no notification would separate them."""
    for index in range(len(queue) - 1, -1, -1):
        earlier = queue[index]
        if not isinstance(earlier, Gap):
            return False
        if earlier.reason == gap.reason:
            loss = _Loss.of(earlier)
            loss.merge(gap)
            queue[index] = loss.as_gap()
            return True
    return False


class Buffer:
    """See the module.

    Args:
        capacity: notifications that it holds at most, at least 1.
        capacity_bytes: bytes of payload that it holds at most, at least 1.
        overflow: the policy.
        clock: the time of day (aware) by which everything was put in that had arrived; used for `Gap.since`.

    Raises:
        ValueError: a capacity below 1, or an unknown policy.
    """

    __slots__ = (
        "_after_gap",
        "_bytes",
        "_clock",
        "_complete_until",
        "_held",
        "_losses",
        "_next",
        "_put",
        "_queue",
        "capacity",
        "capacity_bytes",
        "dropped",
        "gaps",
        "overflow",
        "overflowed",
    )

    def __init__(self, capacity: int, capacity_bytes: int, overflow: Overflow, clock: Callable[[], datetime]) -> None:
        if not isinstance(capacity, int) or not isinstance(capacity_bytes, int):
            raise TypeError(f"a capacity is an int: capacity={capacity!r}, capacity_bytes={capacity_bytes!r}")
        if capacity < 1 or capacity_bytes < 1:
            raise ValueError(f"a buffer holds at least 1: capacity={capacity}, capacity_bytes={capacity_bytes}")
        if overflow not in get_args(Overflow):
            raise ValueError(f"overflow is one of {', '.join(get_args(Overflow))}, not {overflow!r}")
        self.capacity = capacity
        self.capacity_bytes = capacity_bytes
        self.overflow = overflow
        self.overflowed = False
        """Whether it was full and its policy is `close`: nothing is put in any more."""
        self.dropped = 0
        """Notifications that did not fit; for `latest`, also those that a newer one replaced."""
        self.gaps = 0
        """Gaps taken out."""
        self._clock = clock
        self._next: deque[Notify | Gap] = deque()  # these come first, and do not go for want of room
        self._losses: dict[GapReason, _Loss] = {}  # these come then
        self._queue: deque[Notify | Gap] = deque()  # and these
        self._after_gap = False  # whether a gap was the last that was taken
        self._held = 0  # notifications in the queue
        self._bytes = 0  # of payload in the queue
        self._put = 0
        self._complete_until = clock()

    # -- the subscriber's end

    def take(self) -> Notify | Gap | None:
        """The oldest of what is there, or None.

        A signal handler that raises does so after calls: nothing is called between the end of the event's life in
        here and the return.
        """
        if self._losses and not self._next:
            reason = next(iter(self._losses))
            gap = self._losses[reason].as_gap()
            self.gaps += 1
            self._after_gap = True
            del self._losses[reason]
            return gap
        part = self._next or self._queue
        if not part:
            return None
        event = part[0]
        if isinstance(event, Gap):
            self.gaps += 1
            self._after_gap = True
        else:
            size = len(event[2]) if type(event) is Notify and event[2].isascii() else _size(event)
            if part is self._queue:
                self._held -= 1
                self._bytes -= size
            self._after_gap = False
        del part[0]
        return event

    def restore(self, event: Notify | Gap) -> None:
        """Put back what was taken last, and could not be handed over, even if there is no room for it any more.

        It comes before what was lost meanwhile, and does not go for want of room. As in `take`, nothing is called once
        something has changed.
        """
        taken = isinstance(event, Gap)
        following = deque((event, *self._next))
        self._next = following
        self.gaps -= taken

    def __len__(self) -> int:
        """How many can be taken, gaps included."""
        return len(self._next) + len(self._losses) + len(self._queue)

    @property
    def bytes(self) -> int:
        """Bytes of payload held now."""
        return self._bytes + payload_bytes(self._notifications_next())

    @property
    def delivered(self) -> int:
        """Notifications taken out."""
        return self._put - self.dropped - self._held - len(self._notifications_next())

    # -- the socket's end

    def put(self, events: Sequence[Notify], size: int) -> None:
        """Put in `events`, oldest first, whose payloads have `size` bytes."""
        if self.overflowed:
            return
        if not self._queue and not self._losses and not self._next:
            self._complete_until = self._clock()
        self._put += len(events)
        if self.overflow == "latest":
            events = self._conflate(events)
            size = payload_bytes(events)
        if self._held + len(events) <= self.capacity and self._bytes + size <= self.capacity_bytes:
            self._queue.extend(events)
            self._held += len(events)
            self._bytes += size
        else:
            for event in events:
                self._put_tightly(event)

    def report(self, gap: Gap) -> None:
        """Put in a gap."""
        if _join(self._queue, gap):
            return
        if not self._held and gap.reason in self._losses:  # nothing lies between it and the losses at the head
            self._losses[gap.reason].merge(gap)
        else:
            self._queue.append(gap)

    def forget(self, channel: str) -> None:
        """Drop, without a gap, what is buffered of `channel`: the subscriber does not want it any more."""
        self._put -= self._keep(lambda event: event.channel != channel)

    def clear(self) -> None:
        """Drop everything, without a gap: there is no subscriber any more."""
        self._put = self.delivered + self.dropped
        self._held = self._bytes = 0
        self._next.clear()
        self._queue.clear()
        self._losses.clear()

    # -- making room

    def _put_tightly(self, event: Notify) -> None:
        size = _size(event)
        while not self.overflowed and (self._held >= self.capacity or self._bytes + size > self.capacity_bytes):
            if self.overflow == "close":
                self.overflowed = True
            elif not self._held:  # too long for an empty buffer
                break
            elif self.overflow == "clear":
                self._lose_all()
            else:
                self._lose_oldest()
        if self.overflowed:
            self.dropped += 1
        elif self._bytes + size > self.capacity_bytes:
            self.dropped += 1
            self.report(self._gap_for(event))  # behind the gaps that were put back, if there are any
        else:
            self._queue.append(event)
            self._held += 1
            self._bytes += size

    def _lose_all(self) -> None:
        while self._queue:
            self._lose(self._queue.popleft())
        self._held = self._bytes = 0

    def _lose_oldest(self) -> None:
        event = self._queue.popleft()
        if isinstance(event, Notify):
            self._held -= 1
            self._bytes -= _size(event)
            if self._after_gap and not self._next:
                self._next.extend(loss.as_gap() for loss in self._losses.values())
                self._next.append(event)
                self._losses = {}
                return
        self._lose(event)

    def _lose(self, event: Notify | Gap) -> None:
        if isinstance(event, Gap):
            self._merge_at_head(event)
            return
        self.dropped += 1
        loss = self._losses.get(GapReason.OVERFLOW)
        if loss is None or loss.count is None:
            self._merge_at_head(self._gap_for(event))
        else:  # in a flood this is the common case
            loss.channels.add(event.channel)
            loss.count += 1

    def _gap_for(self, event: Notify) -> Gap:
        detail = (
            f"the subscriber was too slow for its buffer of {self.capacity} notifications"
            f" and {self.capacity_bytes} bytes"
        )
        return Gap(GapReason.OVERFLOW, (event.channel,), self._complete_until, 1, detail)

    def _merge_at_head(self, gap: Gap) -> None:
        loss = self._losses.get(gap.reason)
        if loss is None:
            self._losses[gap.reason] = _Loss.of(gap)
        else:
            loss.merge(gap)

    def _conflate(self, events: Sequence[Notify]) -> Sequence[Notify]:
        newest: dict[str, Notify] = {}
        for event in events:
            newest.pop(event.channel, None)  # so that they stand in the order in which they came
            newest[event.channel] = event
        replaced = self._keep(lambda event: event.channel not in newest)
        self.dropped += len(events) - len(newest) + replaced
        return list(newest.values())

    def _keep(self, wanted: Callable[[Notify], bool]) -> int:
        """Keep the gaps and the wanted; return how many went."""
        queue = deque[Notify | Gap]()
        count = size = 0
        for event in self._queue:
            if isinstance(event, Gap):
                if not _join(queue, event):
                    queue.append(event)
            elif wanted(event):
                queue.append(event)
            else:
                count += 1
                size += _size(event)
        self._queue = queue
        self._held -= count
        self._bytes -= size
        kept = deque(event for event in self._next if isinstance(event, Gap) or wanted(event))
        count += len(self._next) - len(kept)
        self._next = kept
        return count

    def _notifications_next(self) -> list[Notify]:
        return [event for event in self._next if isinstance(event, Notify)]
