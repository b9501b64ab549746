"""How a reader gets from one position to the next: what to ask the server for, and what its answers mean.

A shell loops: it asks `next_step`, has the database answer that, and reports a fact. A step that failed, or whose
answer was lost, may simply be asked for again: nothing has changed before the fact is reported.

    Look        the entries that are due, all of them unless they are many: the common case, one statement
    Measure     they are many: how far would one get now?
    Page        some of them, in the order of ids, up to there
    Ask, Find   on a standby, which does not tell which transactions are running, in place of the first two; and Ask
                before it goes on in the midst of a batch: a standby, or one that was, may not have got as far

It keeps the promises of `core.position`, and some positions of the past: if a session shows that history was rewritten,
it goes on at the newest that both histories share.

Every answer also has what retention has removed by then (`core.trimmed`), which is reported first. An entry that should
be there and is not may have been removed: it was, if it is not newer than the newest one removed, and both belong to
one history, that is, to one timeline, or if it is that newest one itself. (What a standby said has no timeline, and is
given the benefit of the doubt: such a reader gets the gap of retention in any case.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from pgpubsub.core.position import FIRST, Anchor, Covered, Newest, Position, Snapshot
from pgpubsub.core.trimmed import Trimmed
from pgpubsub.events import GapReason

__all__ = ["WITNESSES", "Ask", "Batch", "Find", "Look", "Measure", "Newest", "Page", "Reading", "Step", "seen"]

PAST = 64
"""Positions that are remembered."""

WITNESSES = 100
"""Entries of the last batch that are remembered."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is visible now and not covered?"""

    covered: Covered


@dataclass(frozen=True, slots=True)
class Measure:
    """A snapshot, the newest entry in it among those that are not below `covered`, and the highest id."""

    covered: Covered


@dataclass(frozen=True, slots=True)
class Ask:
    """Which of these transactions are running, among those below the snapshot's xmax? `known` one by one, and those
    from `start` on (None: from the snapshot's xmin on)."""

    known: tuple[int, ...]
    start: int | None


@dataclass(frozen=True, slots=True)
class Find:
    """The newest visible entry, the highest id, and which of `running`, and of those from `xmax` on, have entries that
    are visible."""

    covered: Covered
    running: frozenset[int]
    xmax: int


@dataclass(frozen=True, slots=True)
class Page:
    """The entries of `target` that are not of `covered`, with ids above `after` (None: from the first of them on), and
    at most `until`."""

    covered: Covered
    target: Covered
    after: int | None
    until: int


Step = Look | Measure | Ask | Find | Page


@dataclass(frozen=True, slots=True)
class Batch:
    """Where each of some entries, that were read together, stands."""

    within: Position
    """Before and between them, but for `last`."""
    after: Position
    """Behind the last of them."""
    last: int | None
    """The id of that; None when there are none."""

    @property
    def stream(self) -> int:
        """Whose entries they are."""
        return self.after.stream

    def position(self, id: int, xid: int = 0, appended_at: datetime | None = None, /) -> Position:
        """Where a reader stands that has got the entry `id`, or one before the entry that follows it."""
        place = self.after if id == self.last else replace(self.within, last=id)
        is_anchor = place.anchor is not None and place.anchor.id == id
        witness = None if appended_at is None or is_anchor else seen(xid, id, appended_at)
        return replace(place, witness=witness)


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def seen(xid: int, id: int, appended_at: datetime) -> Newest:
    """An entry that a reader has seen."""
    return Newest(xid, Anchor(id, (appended_at - EPOCH) // MICROSECOND))


HIGHEST = (1 << 63) - 1


class Reading:
    """See the module.

    Args:
        stream: the stream's id.
        start: where to begin; None at the oldest entry.
        standby: whether to read from a server that is, or was, in recovery.
    """

    def __init__(self, stream: int, start: Position | None = None, *, standby: bool = False) -> None:
        self._position = start or Position(UUID(int=0), stream, 0)
        self._begun = start is not None
        self.standby = standby
        """Whether the server that answers is, or was, in recovery."""
        self._second = False  # the first question was answered, and another one follows
        self._until: int | None = None  # the highest id of the target; None when it was resumed, and nobody knows
        self._running: frozenset[int] | None = None  # on a standby, when it was asked last
        self._asked_below: int | None = None
        self._arrived = None if standby else True  # whether all of the target has ended here; None: nobody asked
        self._past: list[Position] = []
        self._witnesses: Sequence[Newest] = () if start is None or start.witness is None else (start.witness,)
        self.trimmed: Trimmed | None = None
        """What retention has removed, as far as it is known; None: nothing."""
        self._judged: Trimmed | None = None
        self._anchored_on = self._position.timeline  # where the anchors were found when they were looked for last

    @property
    def position(self) -> Position:
        """Where it stands."""
        return self._position

    @property
    def in_midst(self) -> bool:
        """Whether the next step belongs to what the last one began."""
        return self._second or self._position.target is not None

    @property
    def behind(self) -> bool:
        """Whether the server, when it was asked last, had not got as far as the batch in the midst of which this is: it
        is to be asked again after a while."""
        return self._position.target is not None and self._arrived is False

    def next_step(self) -> Step:
        """What to ask the database next."""
        position = self._position
        if position.target is not None and self._arrived:
            until = HIGHEST if self._until is None else self._until
            return Page(position.covered, position.target, position.last or None, until)
        if not self.standby and position.target is None:
            return Measure(position.covered) if self._second else Look(position.covered)
        if self._second and position.target is None and self._running is not None:
            assert self._asked_below is not None
            return Find(position.covered, self._running, self._asked_below)
        known = self._running or frozenset()
        return Ask(tuple(sorted(known.union(position.covered.open))), self._asked_below)

    # -- facts

    def on_session(self, birth: UUID, timeline: int) -> GapReason | None:
        """It reads over another session than before, of a server with this history. What a standby said is forgotten:
        this one may lag behind that one."""
        position = self._position
        self._running = self._asked_below = self.trimmed = None
        self._arrived = None if self.standby or position.timeline != timeline else True
        if self._begun and position.birth != birth:
            self._restart(Position(birth, position.stream, timeline))
            return GapReason.RESTORED
        self._begun = True
        if position.anchor is None:
            self._anchored_on = timeline
        self._position = replace(position, birth=birth, timeline=timeline)
        return None

    @property
    def anchors(self) -> Sequence[Newest]:
        """The entries that should be there: that of the position, and those of the past, the newest first."""
        return [
            Newest((one.target or one.covered).below - 1, one.anchor)
            for one in [self._position, *reversed(self._past)]
            if one.anchor is not None
        ]

    @property
    def witnesses(self) -> Sequence[Newest]:
        """Entries that were delivered last, one of each transaction, and should be there too."""
        return self._witnesses

    def passed(self, expected: Sequence[Newest], trimmed: Trimmed | None) -> Collection[int]:
        """Which of `expected`, of `anchors` and `witnesses`, need not be there, by their numbers from 0 on: `trimmed`
        has passed them."""
        if trimmed is None:
            return ()
        timelines = {self._anchored_on, self._position.timeline} - {0}
        newest = trimmed.newest
        return {
            number
            for number, one in enumerate(expected)
            if one == newest or (one.xid <= newest.xid and len(timelines) < 2)
        }

    def on_anchors(self, found: Collection[int], *, witnesses: bool = True) -> GapReason | None:
        """Which of `anchors` are there, or need not be, by their numbers from 0 on, and whether all witnesses are."""
        position = self._position
        self._anchored_on = position.timeline or self._anchored_on
        if position.anchor is None or (0 in found and witnesses):
            return None
        earlier = self._past[::-1]
        common = next((number for number in range(1, len(earlier) + 1) if number in found), None)
        if common is None:
            self._restart(Position(position.birth, position.stream, position.timeline))
        else:
            self._restart(replace(earlier[common - 1], timeline=position.timeline), earlier[common:][::-1])
        return GapReason.REWOUND

    def on_trimmed(self, trimmed: Trimmed) -> GapReason | None:
        """The statement whose answer is reported next has found this, and it is not what was known."""
        self.trimmed = trimmed
        if trimmed == self._judged:
            return None
        self._judged = trimmed
        return GapReason.TRIMMED if trimmed.took_from(self._position) else None

    def on_looked(self, snapshot: Snapshot, newest: Newest | None, last: int | None) -> Batch | None:
        """These were all: `last` is the highest id of them, and `newest` the newest that is not below what was covered.
        Without any there is no batch, and nothing to do until something happens."""
        before = self._position
        newest = self._or_removed(newest)
        covered = _begun(before.covered.advance(snapshot, newest and newest.xid))
        anchor = before.anchor if newest is None else newest.anchor
        if last is not None:
            self._remember()
        self._position = replace(before, anchor=anchor, covered=covered)
        if last is None:
            return None
        return Batch(replace(before, anchor=anchor, target=covered), self._position, last)

    def on_many(self) -> None:
        """There are more than one look brings."""
        self._second = True

    def on_measured(self, snapshot: Snapshot, newest: Newest | None, until: int | None) -> None:
        """What `Measure` asked for."""
        newest = self._or_removed(newest)
        self._aim(self._position.covered.advance(snapshot, newest and newest.xid), newest, until)

    def on_asked(self, running: Collection[int], xmax: int) -> None:
        """What `Ask` asked for."""
        self._running = frozenset(running)
        self._asked_below = xmax
        covered, target = self._position.covered, self._position.target
        if target is None:
            self._second = True
        else:
            ended = not any(target.covers(xid) and not covered.covers(xid) for xid in self._running)
            self._arrived = ended and target.below <= xmax

    def on_found(self, newest: Newest | None, seen: Collection[int], until: int | None) -> None:
        """What `Find` asked for."""
        assert self._running is not None
        assert self._asked_below is not None
        covered = self._position.covered
        if newest is not None and newest.xid < covered.below:
            newest = None
        newest = self._or_removed(newest)
        below = covered.below if newest is None else newest.xid + 1
        still = {xid for xid in covered.open if xid in self._running or xid >= self._asked_below}
        still.update(xid for xid in self._running if covered.below <= xid < below)
        still.update(range(max(self._asked_below, covered.below), below))
        still.difference_update(seen)
        if self.trimmed is not None:  # those below have ended, perhaps since they were asked about
            still = {xid for xid in still if xid > self.trimmed.newest.xid}
        self._aim(Covered(below, tuple(sorted(still))), newest, until)

    def on_page(self, last: int | None, done: bool) -> Batch:
        """A page was read, as far as the id `last` (None: it was empty). `done`: it was the last."""
        within = self._position
        assert within.target is not None
        if done or last is None or (self._until is not None and last >= self._until):
            self._position = replace(within, covered=within.target, target=None, last=0)
            return Batch(within, self._position, last)
        self._position = replace(within, last=last)
        return Batch(within, self._position, last)

    def on_delivered(self, entries: Iterable[Newest]) -> None:
        """These are the entries of the last batch or page."""
        one_of_each = {entry.xid: entry for entry in entries}
        self._witnesses = list(one_of_each.values())[-WITNESSES:]
        self._position = replace(self._position, witness=None)

    def on_passed_over(self) -> None:
        """What would come next is not wanted: all that is there at present."""
        if self._position.target is not None:
            self._position = replace(self._position, covered=self._position.target, target=None, last=0)

    # -- inside

    def _aim(self, target: Covered, newest: Newest | None, until: int | None) -> None:
        """Read page by page, up to `target`."""
        self._second = False
        position = self._position
        target = _begun(target)
        anchor = position.anchor if newest is None else newest.anchor
        if until is None:  # there are none
            self._position = replace(position, covered=target, anchor=anchor)
        elif target != position.covered:
            self._remember()
            self._until = until
            self._arrived = True
            self._position = replace(position, target=target, anchor=anchor)

    def _or_removed(self, newest: Newest | None) -> Newest | None:
        """The newest entry, or one that is newer and was removed: all that is left below that one is visible."""
        removed = None if self.trimmed is None else self.trimmed.newest
        if removed is None or removed.xid < self._position.covered.below:
            return newest
        return removed if newest is None else max(newest, removed)

    def _remember(self) -> None:
        """The present position will be one of the past: more of the recent ones, fewer of the old."""
        if self._position.anchor is not None:
            self._past.append(self._position)
        if len(self._past) > PAST:
            self._past = self._past[: PAST // 2 : 2] + self._past[PAST // 2 :]

    def _restart(self, position: Position, past: Sequence[Position] = ()) -> None:
        self._position = replace(position, witness=None)
        self._past = list(past)
        self._witnesses = ()
        self._until = None
        self._judged = None


def _begun(covered: Covered) -> Covered:
    """`covered`, as of one who has looked."""
    return covered._replace(below=max(covered.below, FIRST))
