"""The demonstration's books: what was sent, what was received, and whether what is missing lies within a gap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from pgpubsub.events import Gap, Notify

__all__ = ["Arrival", "Hole", "Ledger", "ranges"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One notification received."""

    number: int
    event: Notify
    time: datetime
    latency: float
    """Seconds from just before it was sent until the subscriber had it in hand."""


@dataclass(slots=True)
class Hole:
    """A `Gap`, and the numbers of the notifications around it."""

    gap: Gap
    outage: float
    """Seconds from the kill until the subscriber learnt that it is live again."""
    after: int
    """The last that arrived before it."""
    until: int
    """The last that was sent before it was reported: whatever is sent later has to arrive."""
    before: int | None = None
    """The first that arrived after it, as soon as there is one."""
    missing: Sequence[int] = ()
    """What did not arrive, and what the gap accounts for."""


class Ledger:
    """Notifications are numbered from 1, in the order in which they are sent."""

    def __init__(self) -> None:
        self.sent_at: list[float] = []
        self.received: dict[int, Arrival] = {}
        self.holes: list[Hole] = []
        self.killed_at = 0.0
        self.last_received = 0
        self.lost = 0
        self._out_of_order = 0

    def send(self, now: float) -> int:
        """The number of the next notification, which is about to be sent."""
        self.sent_at.append(now)
        return len(self.sent_at)

    def arrive(self, number: int, event: Notify, now: float) -> Hole | None:
        """A notification has arrived. Returns the hole that ends with it, if one does."""
        if number <= self.last_received:
            self._out_of_order += 1
            return None
        self.received[number] = Arrival(number, event, datetime.now(), now - self.sent_at[number - 1])
        hole = self.holes[-1] if self.open else None
        if hole is not None:
            hole.before = number
            hole.missing = range(hole.after + 1, min(number, hole.until + 1))
            self.lost += len(hole.missing)
        self.last_received = number
        return hole

    def lose(self, gap: Gap, now: float) -> None:
        """The subscriber was told of a gap."""
        self.holes.append(Hole(gap, now - self.killed_at, self.last_received, len(self.sent_at)))

    @property
    def open(self) -> bool:
        """Whether nothing has arrived since the last gap."""
        return bool(self.holes) and self.holes[-1].before is None

    @property
    def recovered(self) -> bool:
        """Whether there was a gap, and something has arrived since."""
        return bool(self.holes) and not self.open

    def missing(self) -> list[int]:
        """All that were sent and have not arrived."""
        return [number for number in range(1, len(self.sent_at) + 1) if number not in self.received]

    def latency(self, share: float) -> float:
        """The seconds within which this share of them arrived."""
        latencies = sorted(arrival.latency for arrival in self.received.values())
        return latencies[min(int(share * len(latencies)), len(latencies) - 1)] if latencies else 0.0

    def complaints(self) -> list[str]:
        """What is not as the library promises."""
        unexplained = set(self.missing()).difference(*(hole.missing for hole in self.holes))
        found = {
            "nothing was received": not self.received,
            "no gap was reported, though the connection was killed": not self.holes,
            "nothing was received after the gap": self.open,
            f"missing outside of any gap: {ranges(unexplained)}": bool(unexplained),
            f"{self._out_of_order} arrived twice or out of order": bool(self._out_of_order),
        }
        return [complaint for complaint, applies in found.items() if applies]


def ranges(numbers: Iterable[int]) -> str:
    """
    >>> ranges([7, 1, 2, 3])
    '#1 to #3, #7'
    """
    ordered = sorted(numbers)
    starts = ordered[:1] + [later for earlier, later in pairwise(ordered) if later > earlier + 1]
    ends = [earlier for earlier, later in pairwise(ordered) if later > earlier + 1] + ordered[-1:]
    return ", ".join(f"#{start}" + f" to #{end}" * (start < end) for start, end in zip(starts, ends, strict=True))
