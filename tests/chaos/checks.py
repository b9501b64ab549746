"""What has to be true of what subscribers and readers have got, given what was sent. Pure: lists in, complaints out.

For each subscriber: what was sent on its channels while it was there, and is committed, it has got, once and in order,
or it lies inside a gap that it was told of: at that place between the others, on that channel, committed since the time
that the gap says. What is certain not to have been sent it has not got. A gap that counts has counted right.

For each reader of a stream: every entry that is committed, once, each publisher's in order, and no gap. Where the
servers have lost what they had committed, whoever has got some of it is told so, and gets what there is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

__all__ = ["Entry", "Gap", "Notify", "Record", "Sent", "check_reader", "check_subscriber"]

Outcome = Literal["committed", "uncertain", "not"]


class Sent(NamedTuple):
    """A message on its way."""

    publisher: str
    number: int
    """A publisher's increase."""
    begun: float
    ended: float
    outcome: Outcome
    """As its publisher was told."""


class Notify(NamedTuple):
    """A message that came on a channel."""

    channel: str
    publisher: str
    number: int
    at: float = 0.0
    """When."""


class Entry(NamedTuple):
    """An entry that came."""

    publisher: str
    number: int


@dataclass(frozen=True)
class Gap:
    """A gap that was told."""

    reason: str
    channels: tuple[str, ...]
    since: float | None
    """None where a clock was set meanwhile."""
    count: int | None

    @property
    def uncounted(self) -> bool:
        """Whether it does not say what it could."""
        return self.reason == "overflow" and self.count is None


@dataclass
class Record:
    """All that a subscriber has got since it was there."""

    name: str
    channels: tuple[str, ...]
    opened: float
    latest: bool = False
    """Whether it keeps only the newest of each channel, which no gap tells."""
    counts: bool = True
    """Whether it is told how many an overflow has cost, always."""
    wanders: bool = False
    """Whether it may go on, behind a gap, with one that hears later: then what came before the gap may come again."""
    ended: bool = False
    """Whether it went away, with whatever came last."""
    events: list[Notify | Gap] = field(default_factory=list)


def check_subscriber(record: Record, sent: Mapping[str, Sequence[Sent]], on_its_way: float = 0.0) -> list[str]:
    """What is wrong with it.

    Args:
        record: what came. Unless it has ended, all that was sent has come, or lies in a gap, if nothing is wrong.
        sent: by channel, everything, each publisher's in order.
        on_its_way: seconds that a message may have taken: `since` says when the last that came before it arrived.
    """
    wrong = [f"{event} is nothing that was sent to it" for event in _strangers(record, sent)]
    wrong += [f"{gap} does not count" for gap in _gaps(record) if record.counts and gap.uncounted]
    wrong += _check_since(record, sent, on_its_way)
    counted: list[tuple[set[int], int, int]] = []  # places of gaps, and fewest and most that are missing there
    unclear: set[int] = set()  # gaps of which nobody knows what is missing there
    for channel in record.channels:
        for line in _lines(sent.get(channel, ())).values():
            wrong += _check_line(record, channel, line, on_its_way, counted, unclear)
    for places, fewest, most in _together(counted):
        gaps = [gap for place in sorted(places) if isinstance(gap := record.events[place], Gap)]
        counts = [gap.count for gap in gaps if gap.count is not None]
        if len(counts) < len(gaps) or places & unclear:
            continue
        if not fewest <= sum(counts) <= most:
            wrong.append(f"{gaps} at {sorted(places)} says {sum(counts)}, and {fewest} to {most} are missing there")
    return [f"{record.name}: {one}" for one in wrong]


def _together(counted: Iterable[tuple[set[int], int, int]]) -> Sequence[tuple[set[int], int, int]]:
    """Those that have a gap in common as one."""
    groups: list[tuple[set[int], int, int]] = []
    for places, fewest, most in counted:
        apart = []
        for its in groups:
            if its[0] & places:
                places, fewest, most = places | its[0], fewest + its[1], most + its[2]
            else:
                apart.append(its)
        groups = [*apart, (places, fewest, most)]
    return groups


def _gaps(record: Record) -> Iterator[Gap]:
    return (event for event in record.events if isinstance(event, Gap))


def _check_since(record: Record, sent: Mapping[str, Sequence[Sent]], on_its_way: float) -> Iterator[str]:
    """When a connection is lost, what has come is not missing. (A full buffer is another matter.) It may have been lost
    before the subscriber came, who could not know."""
    begun = {
        (channel, one.publisher, one.number): one.begun for channel in record.channels for one in sent.get(channel, ())
    }
    last = float("-inf")
    for event in record.events:
        if isinstance(event, Notify):
            last = max(last, begun.get(event[:3], last))
        elif event.reason != "overflow" and event.since is not None and event.since < last - on_its_way:
            yield f"{event} begins before {last}, when the last message before it was sent"


def _strangers(record: Record, sent: Mapping[str, Sequence[Sent]]) -> Iterator[Notify]:
    known = {(channel, one.publisher, one.number) for channel in record.channels for one in sent.get(channel, ())}
    for event in record.events:
        if isinstance(event, Notify) and event[:3] not in known:
            yield event


def _lines(sent: Iterable[Sent]) -> dict[str, list[Sent]]:
    lines = defaultdict(list)
    for one in sent:
        lines[one.publisher].append(one)
    return lines


def _check_line(
    record: Record,
    channel: str,
    line: Sequence[Sent],
    on_its_way: float,
    counted: list[tuple[set[int], int, int]],
    unclear: set[int],
) -> list[str]:
    """What one publisher has sent on one channel."""
    gaps = [
        (place, event)
        for place, event in enumerate(record.events)
        if isinstance(event, Gap) and channel in event.channels
    ]

    def elsewhere(place: int, later: int) -> bool:
        return record.wanders and any(place < between < later for between, _ in gaps)

    places: dict[int, int] = {}
    wrong = []
    for place, event in enumerate(record.events):
        if isinstance(event, Notify) and (event.channel, event.publisher) == (channel, line[0].publisher):
            first = places.setdefault(event.number, place)
            if first != place and not elsewhere(first, place):
                wrong.append(f"{event} came twice, at {first} and {place}")
    wrong += [
        f"{one} came on {channel} although it was not sent"
        for one in line
        if one.outcome == "not" and one.number in places
    ]
    came = [(one.number, places[one.number]) for one in line if one.number in places and one.outcome == "committed"]
    wrong += [
        f"{channel}: {two[0]} came before {one[0]}"
        for one, two in pairwise(came)
        if one[1] > two[1] and not elsewhere(two[1], one[1])
    ]
    if record.latest:
        return wrong
    before = -1
    missing: list[Sent] = []
    for one in [*line, None]:
        if one is not None and one.number not in places:
            missing.append(one)
            continue
        after = len(record.events) if one is None else places[one.number]
        between = [(place, gap) for place, gap in gaps if before < place < after]
        if one is None and record.ended:  # and nobody knows how much of this it was there for
            unclear.update(place for place, _ in between)
            break
        wrong += _check_missing(record, channel, missing, between, on_its_way)
        if between:
            surely = sum(one.outcome == "committed" and one.begun > record.opened for one in missing)
            perhaps = sum(one.outcome != "not" for one in missing)
            counted.append(({place for place, _ in between}, surely, perhaps))
        before, missing = after, []
    return wrong


def _check_missing(
    record: Record, channel: str, missing: Iterable[Sent], between: Sequence[tuple[int, Gap]], on_its_way: float
) -> Iterator[str]:
    for one in missing:
        if one.outcome != "committed" or one.begun <= record.opened:
            continue
        told = [gap for _, gap in between if gap.since is None or gap.since <= one.ended + on_its_way]
        if not told:
            yield f"{one} on {channel} is missing, and no gap tells of it; at its place: {[gap for _, gap in between]}"


def check_reader(
    name: str,
    events: Sequence[Entry | Gap],
    committed: Collection[Entry],
    sure: Collection[Entry] = (),
    *,
    doubtful: Collection[Entry] = (),
    earlier: Collection[Entry] = (),
) -> list[str]:
    """What is wrong with what a reader has got.

    Args:
        events: that came.
        committed: entries that are in the table.
        sure: those of which a publisher was told that they are.
        doubtful: those that the servers may have lost nevertheless. Who has got one that is not there any more is told
            so by a gap, and what came before it may come again.
        earlier: that are in the table, and came to everybody long ago.
    """
    there, perhaps = set(committed), set(doubtful)
    wrong = [f"{one} is not in the table, and was acknowledged" for one in sorted(set(sure) - there - perhaps)]
    came: set[Entry] = set()
    for place, part in enumerate(parts := _parts(events)):
        times = Counter(part)
        wrong += [f"{one} came {number} times" for one, number in sorted(times.items()) if number > 1]
        wrong += _check_order(part, sure)
        came |= set(times)
        known = there | (set(earlier) if place else set())
        if place + 1 == len(parts):  # and nothing tells that it is gone
            wrong += [f"{one} came and is not in the table" for one in sorted(set(times) - known)]
        elif not came & perhaps:
            wrong.append("it was told that history has changed, and has got nothing that can be lost")
        else:
            wrong += [f"{one} came and was never in the table" for one in sorted(set(times) - known - perhaps)]
    wrong += [f"{one} did not come" for one in sorted(there - came)]
    wrong += [f"{gap}, although that cannot be" for gap in events if isinstance(gap, Gap) and gap.reason != "rewound"]
    return [f"{name}: {one}" for one in wrong]


def _parts(events: Iterable[Entry | Gap]) -> Sequence[Sequence[Entry]]:
    """The entries before, between and behind the gaps."""
    parts: list[list[Entry]] = [[]]
    for event in events:
        if isinstance(event, Gap):
            parts.append([])
        else:
            parts[-1].append(event)
    return parts


def _check_order(entries: Iterable[Entry], sure: Collection[Entry]) -> Iterator[str]:
    """Any that is not sure may have been committed after those that were appended behind it."""
    last: dict[str, int] = {}
    for one in entries:
        if one in sure:
            if one.number < last.get(one.publisher, -1):
                yield f"{one} came after {last[one.publisher]}"
            last[one.publisher] = one.number
