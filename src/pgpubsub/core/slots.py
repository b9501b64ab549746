"""The slots of a group: who has how many, where each stands, and what is said and written down of their entries."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pgpubsub.core.position import NOTHING, Covered

__all__ = [
    "SLOTS",
    "UNSEEN",
    "Item",
    "Lane",
    "Line",
    "Parked",
    "Place",
    "Slot",
    "SlotState",
    "Started",
    "Write",
    "quota",
]

SLOTS = 32
"""Of every group. The schema says so too."""


def quota(members: Sequence[str], me: str) -> int:
    """How many slots `me` is to have, one of `members`, which all know in the same order.

    >>> [quota("abc", member) for member in "abc"]
    [11, 11, 10]
    """
    fewest, more = divmod(SLOTS, len(members))
    return fewest + (list(members).index(me) < more)


class Place(NamedTuple):
    """Where a slot stands: `covered`, and of `target` what has an id up to `last`."""

    covered: Covered
    target: Covered | None = None
    last: int = 0

    def covers(self, xid: int, id: int) -> bool:
        """Whether it is behind this entry."""
        if self.covered.covers(xid):
            return True
        return self.target is not None and id <= self.last and self.target.covers(xid)


UNSEEN = Place(NOTHING)
"""Where a slot stands that nobody has looked at."""


class Lane(NamedTuple):
    """Slots that are read together, and where that begins. Some of them may be further."""

    start: Place
    slots: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Item:
    """An entry, on its way to be handled."""

    id: int
    slot: int
    key: str | None
    entry: Any
    xid: int = 0
    attempts: int = 0
    """How often it was handed out, this time included."""
    together: int = 1
    """With how many it may be handed out. 0: it alone was in hand when its member ended. Below 0: others were too, and
    it may be handed out with so many."""
    parked: bool = False
    """Whether it comes from among the parked ones."""
    size: int = 0
    """About how many bytes it takes."""

    def suspect(self, attempts: int) -> bool:
        """Whether it may have ended its member, and has had all its attempts."""
        return self.together < 0 and self.attempts >= attempts


class Parked(NamedTuple):
    """What is to be said of an entry that is parked, or is to be."""

    id: int
    attempts: int
    together: int = 1
    delay: float | None = None
    """Seconds until it is due; None: when nothing of its key is before it."""
    dead: bool = False
    error: str | None = None
    """None: as it was."""


class Started(NamedTuple):
    """When, and together with how many, an entry comes again should nobody say what became of it."""

    id: int
    delay: float
    together: int


class SlotState(NamedTuple):
    """What is to be said of a slot."""

    number: int
    place: Place
    in_flight: Sequence[int]
    held: Sequence[int]
    kept: bool


@dataclass(slots=True)
class Write:
    """What is to be written down, in one transaction."""

    slots: list[SlotState] = field(default_factory=list)
    durable: bool = False
    """Whether it must not be lost when the server crashes."""
    done: list[int] = field(default_factory=list)
    """Parked entries that were handled."""
    noted: list[int] = field(default_factory=list)
    """Acknowledgements in transactions of handlers, of which note was taken."""
    started: list[Started] = field(default_factory=list)
    """Parked entries that are to be handed out."""
    parked: list[Parked] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    """Those of which entries were parked, or were and are not any more."""


class Slot:
    """One that a member has, and how far it is with it."""

    def __init__(self, number: int, place: Place) -> None:
        self.number = number
        self.read = place
        """As far as it was read."""
        self.queue: deque[tuple[int, Covered, Covered | None]] = deque()
        """Ids of what was read and not looked at; what the slot had covered, and the target, when it was read."""
        self.in_flight: set[int] = set()
        self.held: set[int] = set()
        self.dirty = False
        self.leaving = False
        self.written = place

    @property
    def place(self) -> Place:
        """Before what has not been looked at."""
        if not self.queue:
            return self.read
        id, covered, target = self.queue[0]
        return Place(covered, target, id - 1)


class Line:
    """Entries in order, and how many bytes those have."""

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self._items = deque(items)
        self.size = sum(item.size for item in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def append(self, item: Item) -> None:
        self._items.append(item)
        self.size += item.size

    def popleft(self) -> Item:
        item = self._items.popleft()
        self.size -= item.size
        return item
