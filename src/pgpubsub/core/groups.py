"""What a member of a group hands out next, and what it writes down about it.

A group divides its stream's entries by key into slots, and its members divide the slots. This is one member's share. A
shell takes slots, reads their entries and reports them here; it asks what to `start`, writes down what `plan_write`
says, and only when that is committed hands out what was started, so that a crash counts as an attempt.

Where a slot stands is a position, as in `core.position`, and the exceptions to it: what is in flight, and what is held
because an earlier entry of its key is. An entry that failed is parked, in a table, and comes again from there when it
is due; later entries of its key are parked behind it. So it holds up nothing but its key.

A batch that failed does not say which of its entries is to blame. They come again by tenths, and at last alone: only
what fails alone can be set aside. Nor does a member that died say which of the entries that it had in hand killed it.
One that has had all its attempts, and was in hand when its member ended, comes once more, with nothing else in hand: if
that member ends too, it was it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from operator import attrgetter

from pgpubsub.core.position import Covered
from pgpubsub.core.reading import Batch
from pgpubsub.core.slots import UNSEEN, Item, Lane, Line, Parked, Place, Slot, SlotState, Started, Write

__all__ = ["MANY", "Share"]

MANY = 1_000_000
"""With so many may be handed out what has never been before."""

DIED = "the member that had it ended, or lost its lease"

LANE = 100
"""Entries of a key that are held back at most, while one is in flight; more are parked."""

LONG = 1 << 20
"""Bytes of a key's entries that are held back, or wait until one in flight has landed: where they are more, no others
do."""


class Share:
    """See the module.

    Args:
        attempts: after so many, an entry is set aside.
        backoff: returns the seconds from one attempt to the next, given how many there were.
        batch: how many it is asked to start together. Where many are to come, those of a slot go together, so that less
            has to be written down.
    """

    def __init__(self, attempts: int, backoff: Callable[[int], float], batch: int = 1) -> None:
        self._batch = batch
        self._attempts = attempts
        self._backoff = backoff
        self._slots: dict[int, Slot] = {}
        self._fresh = Line()
        self._ready: deque[Item] = deque()  # that were held, and nothing is before them any more
        self._lanes: dict[str, Line] = {}  # that are held, by key
        self._due: dict[int, Item] = {}
        self._retried: dict[int, Item] = {}  # parked, and in flight
        self._busy: Counter[str] = Counter()  # how many of a key are in flight
        self._in_flight = 0  # how many in all
        self._suspected = False  # whether that is one which must be alone
        self._blocked: set[str] = set()  # keys of which entries are parked
        self._next = Write()

    @property
    def slots(self) -> Mapping[int, Place]:
        """Those that it has, and is to keep, and where they stand."""
        return {number: slot.place for number, slot in self._slots.items() if not slot.leaving}

    @property
    def waiting(self) -> int:
        """Entries that were read, and not looked at."""
        return len(self._fresh)

    @property
    def waiting_bytes(self) -> int:
        """How many those have."""
        return self._fresh.size

    @property
    def idle(self) -> bool:
        """Whether there is nothing to hand out, and nothing in flight."""
        in_flight = any(slot.in_flight or slot.held for slot in self._slots.values())
        return not (self._fresh or self._due or self._retried or in_flight)

    @property
    def due(self) -> int:
        """Parked entries that are due and could be handed out: not those that wait for another one of their key, of
        which there may be many, and which nobody else should have to wait for."""
        return sum(not self._must_wait(item) for item in self._due.values())

    @property
    def due_bytes(self) -> int:
        """How many those have."""
        return sum(item.size for item in self._due.values() if not self._must_wait(item))

    @property
    def long_lines(self) -> Collection[str]:
        """Keys in flight of which so much waits here that no more is to be read before it has landed."""
        lines: Counter[str] = Counter()
        for item in self._due.values():
            if item.key is not None and item.key in self._busy:
                lines[item.key] += item.size
        return [key for key, size in lines.items() if size > LONG]

    @property
    def known(self) -> Collection[int]:
        """Parked entries of which nothing needs to be read: it would be older than what is said here."""
        return {*self._due, *self._retried, *self._next.done, *[parked.id for parked in self._next.parked]}

    def lanes(self) -> Sequence[Lane]:
        """How to read on: what is in the midst of the same target together, and all that is not; but apart from the
        others what nobody has looked at, which has missed nothing of what was removed."""
        found: dict[tuple[Covered | None, bool], list[Slot]] = {}
        for slot in self._slots.values():
            if not slot.leaving:
                found.setdefault((slot.read.target, slot.read == UNSEEN), []).append(slot)
        return [
            Lane(
                Place(
                    _common([slot.read.covered for slot in slots]),
                    target,
                    min(slot.read.last for slot in slots),
                ),
                tuple(slot.number for slot in slots),
            )
            for (target, _), slots in found.items()
        ]

    # -- facts

    def on_taken(self, number: int, place: Place, blocked: Iterable[str] = ()) -> None:
        """It has one more slot. Of the keys that are `blocked`, entries are parked."""
        self._slots[number] = Slot(number, place)
        self._blocked.update(blocked)

    def on_read(self, lane: Lane, items: Sequence[Item], batch: Batch) -> None:
        """Entries of a lane's slots were read, in order of ids. Some may have been before."""
        if 1 < self._batch < len(items):
            items = sorted(items, key=attrgetter("slot"))
        for item in items:
            slot = self._slots[item.slot]
            if not slot.read.covers(item.xid, item.id):
                slot.queue.append((item.id, slot.read.covered, batch.within.target))
                self._fresh.append(item)
        after = batch.after
        for number in lane.slots:
            slot = self._slots[number]
            if after.target is None:
                slot.read = Place(after.covered)
            elif slot.read.target is None or after.last > slot.read.last:
                slot.read = Place(slot.read.covered, after.target, after.last)
            if slot.written == UNSEEN:  # from now on, what is removed before it is handled was missed
                slot.dirty = True

    def on_due(self, items: Iterable[Item]) -> None:
        """These are parked, and due."""
        known = self.known
        for item in items:
            if item.id in known or item.slot not in self._slots or item.key in self._next.keys:
                continue
            if item.key is not None:
                self._blocked.add(item.key)
            if item.attempts >= self._attempts and not item.together:
                self._park(item, Parked(item.id, item.attempts, dead=True, error=DIED))
                self._next.durable = True
            else:
                self._due[item.id] = item

    def on_written(self, write: Write, waiting: Collection[str]) -> None:
        """`write` is committed. Of its keys, only those have entries that wait."""
        still = self._next.keys.union(waiting)
        self._blocked.difference_update(key for key in write.keys if key not in still)
        self._blocked.update(waiting)

    # -- what to hand out

    def start(self, count: int) -> list[Item]:
        """Up to `count` entries, to be handed out together when that is written down. Of one key there may be several
        among them, in order, but no other of these is in flight."""
        suspect = next((item for item in self._due.values() if item.suspect(self._attempts)), None)
        if self._suspected or (suspect is not None and self._in_flight):
            return []
        items = self._pick_due(count, suspect) or self._pick_fresh(count)
        items.sort(key=attrgetter("id"))
        together = max(1, len(items) // 10)
        self._suspected = suspect is not None
        self._in_flight += len(items)
        for item in items:
            item.attempts += 1
            if item.key is not None:
                self._busy[item.key] += 1
            if item.parked:
                self._retried[item.id] = item
                self._next.started.append(Started(item.id, self._backoff(item.attempts), together))
            else:
                slot = self._changed(item)
                slot.held.discard(item.id)
                slot.in_flight.add(item.id)
        return items

    def _pick_due(self, count: int, suspect: Item | None) -> list[Item]:
        picked: list[Item] = []
        for item in self._due.values() if suspect is None else (suspect,):
            limit = 1 if item.attempts >= self._attempts else min(count, max(1, abs(item.together)))
            if len(picked) >= limit:
                break
            if not self._must_wait(item):
                picked.append(item)
                count = limit
        for item in picked:
            del self._due[item.id]
        return picked

    def _must_wait(self, item: Item) -> bool:
        """Whether one that is due cannot be handed out: another one of its key is in flight, or, if it was sent again
        when the group had been set back, this very entry, as a fresh one."""
        if item.key is not None:
            return item.key in self._busy
        return item.id in self._slots[item.slot].in_flight

    def _pick_fresh(self, count: int) -> list[Item]:
        picked: list[Item] = []
        while len(picked) < count:
            if self._ready:
                item = self._ready.popleft()
            elif self._fresh:
                item = self._fresh.popleft()
                self._changed(item).queue.popleft()
                if item.key is None and item.id in self._retried:
                    continue  # it was sent again when the group had been set back, and is handled as a parked one
            else:
                break
            if item.key is None or not (item.key in self._busy or item.key in self._blocked):
                picked.append(item)
            elif item.key in self._blocked or self._is_full(item.key):
                self._slots[item.slot].held.discard(item.id)
                self._blocked.add(item.key)
                self._park(item, Parked(item.id, 0, MANY))
            else:
                self._slots[item.slot].held.add(item.id)
                self._lanes.setdefault(item.key, Line()).append(item)
        return picked

    def _is_full(self, key: str) -> bool:
        lane = self._lanes.get(key)
        return lane is not None and (len(lane) >= LANE or lane.size > LONG)

    # -- what became of it

    def acknowledge(self, items: Iterable[Item], noted: int | None = None) -> None:
        """These were handled. `noted`: as was written down in the handler's own transaction."""
        if noted is not None:
            self._next.noted.append(noted)
        else:
            self._next.durable = True
        for item in items:
            self._land(item)
            if item.parked:
                self._next.done.append(item.id)
                if item.key is not None:
                    self._next.keys.add(item.key)

    def fail(self, items: Sequence[Item], error: str) -> None:
        """These were not."""
        self._next.durable = True
        together = max(1, len(items) // 10)
        before: set[str] = set()
        for item in items:
            dead = len(items) == 1 and item.attempts >= self._attempts
            delay: float | None = 0.0 if len(items) > 1 else self._backoff(item.attempts)
            if dead or item.key in before:
                delay = None
            if item.key is not None and not dead:
                before.add(item.key)
                self._blocked.add(item.key)
            self._park(item, Parked(item.id, item.attempts, together, delay, dead, error))
        for item in items:
            self._land(item)

    def give_back(self, items: Iterable[Item]) -> None:
        """These were started, but not handed out, and will not be: that is no attempt."""
        for item in items:
            item.attempts -= 1
            self._uncount(item)
            if item.parked:
                del self._retried[item.id]
                self._park(item, Parked(item.id, item.attempts, item.together, 0.0))
            else:
                slot = self._changed(item)
                slot.in_flight.discard(item.id)
                slot.held.add(item.id)

    def leave(self, count: int) -> None:
        """Have that many fewer slots, those first in which nothing is in flight. Each goes when nothing is any more."""
        staying = [slot for slot in self._slots.values() if not slot.leaving]
        for slot in sorted(staying, key=lambda slot: len(slot.in_flight) + len(slot.held))[:count]:
            slot.leaving = slot.dirty = True
            slot.read = slot.place
            slot.queue.clear()
        leaving = {number for number, slot in self._slots.items() if slot.leaving}
        self._fresh = Line(item for item in self._fresh if item.slot not in leaving)
        self._due = {id: item for id, item in self._due.items() if item.slot not in leaving}

    # -- what to write down

    def refresh(self) -> None:
        """Write down how far slots were read in which nothing happens."""
        for slot in self._slots.values():
            if slot.place != slot.written:
                slot.dirty = True

    def plan_write(self) -> Write | None:
        """All that has changed since the last time, if anything has."""
        write, self._next = self._next, Write()
        retried = {item.slot for item in self._retried.values()}
        for slot in [slot for slot in self._slots.values() if slot.dirty or slot.leaving]:
            gone = slot.leaving and not slot.in_flight and not slot.held and slot.number not in retried
            if slot.dirty or gone:
                slot.dirty = False
                slot.written = slot.place
                write.slots.append(
                    SlotState(slot.number, slot.written, sorted(slot.in_flight), sorted(slot.held), not gone)
                )
            if gone:
                del self._slots[slot.number]
        if not (write.slots or write.done or write.noted or write.started or write.parked):
            return None
        return write

    # -- inside

    def _changed(self, item: Item) -> Slot:
        slot = self._slots[item.slot]
        slot.dirty = True
        return slot

    def _park(self, item: Item, parked: Parked) -> None:
        self._next.parked.append(parked)
        self._due.pop(item.id, None)
        self._changed(item)
        if item.key is not None:
            self._next.keys.add(item.key)
            # What is behind it may have been due, as long as it was not parked.
            self._due = {id: one for id, one in self._due.items() if one.key != item.key or id < item.id}

    def _land(self, item: Item) -> None:
        """It is not in flight any more."""
        if item.parked:
            del self._retried[item.id]
        else:
            self._changed(item).in_flight.discard(item.id)
        self._uncount(item)
        key = item.key
        if key is None or key in self._busy or key not in self._lanes:
            return
        held = self._lanes.pop(key)
        if key not in self._blocked:
            self._ready.extend(held)
            return
        for other in held:
            self._slots[other.slot].held.discard(other.id)
            self._park(other, Parked(other.id, 0, MANY))

    def _uncount(self, item: Item) -> None:
        self._in_flight -= 1
        self._suspected = False
        if item.key is not None:
            self._busy[item.key] -= 1
            if not self._busy[item.key]:
                del self._busy[item.key]


def _common(sets: Sequence[Covered]) -> Covered:
    """What all of them cover."""
    below = min(covered.below for covered in sets)
    return Covered(below, tuple(sorted({xid for xid in chain(*[one.open for one in sets]) if xid < below})))
