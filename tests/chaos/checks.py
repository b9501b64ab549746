"""What has to be true of what subscribers have got, given what was sent. Pure: lists in, complaints out.

What was sent on a subscriber's channels while it was there, and is committed, it has got, once and in order, or it lies
inside a gap that it was told of: at that place between the others, on that channel, committed since the time that the
gap says. Of a lost connection all are told. What is certain not to have been sent nobody has got. A gap that counts has
counted right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

__all__ = ["Gap", "Notify", "Record", "Sent", "check_calm", "check_subscriber", "check_told"]

SAME = 0.05
"""Seconds by which the `since` of the same gap may differ, as each was taken from a clock of the wall."""
AT_ONCE = 1.0
"""Seconds by which one thread may be slower than another to note what came at the same time."""

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


@dataclass(frozen=True)
class Gap:
    """A gap that was told."""

    reason: str
    channels: tuple[str, ...]
    since: float | None
    """None where a clock was set meanwhile."""
    count: int | None
    at: float = 0.0
    """When it was taken."""

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
    """Whether it went away, or was killed, before it got what was sent last."""
    sent_before: float = float("-inf")
    """When the last of what it got earlier was sent."""
    events: list[Notify | Gap] = field(default_factory=list)


def check_subscriber(record: Record, sent: Mapping[str, Sequence[Sent]], on_its_way: float = 0.0) -> list[str]:
    """What is wrong with it.

    Args:
        record: what came. If nothing is wrong, all that was sent has come, or lies in a gap; if it has ended, all that
            was committed before the last that has come was sent.
        sent: by channel, everything, each publisher's in order.
        on_its_way: seconds that a message may have taken: `since` says when the last that came before it arrived.
    """
    wrong = [f"{event} is nothing that was sent to it" for event in _strangers(record, sent)]
    wrong += [f"{gap} does not count" for gap in _gaps(record) if record.counts and gap.uncounted]
    wrong += _check_since(record, sent, on_its_way)
    counted: list[tuple[set[int], int, int]] = []  # places of gaps, and fewest and most that are missing there
    unclear: set[int] = set()  # gaps of which nobody knows what is missing there
    until = _there_until(record, sent)
    for channel in record.channels:
        for line in _lines(sent.get(channel, ())).values():
            wrong += _check_line(record, channel, line, until, on_its_way, counted, unclear)
    for places, fewest, most in _together(counted):
        gaps = [gap for place in sorted(places) if isinstance(gap := record.events[place], Gap)]
        counts = [gap.count for gap in gaps if gap.count is not None]
        if len(counts) < len(gaps) or places & unclear:
            continue
        if not fewest <= sum(counts) <= most:
            wrong.append(f"{gaps} at {sorted(places)} says {sum(counts)}, and {fewest} to {most} are missing there")
    return [f"{record.name}: {one}" for one in wrong]


def _there_until(record: Record, sent: Mapping[str, Sequence[Sent]]) -> float:
    """Until when it was there for sure: what was committed before something was sent that came has come before that."""
    begun = _begun(record, sent)
    came = (begun[event[:3]] for event in record.events if isinstance(event, Notify) and event[:3] in begun)
    return max(came, default=float("-inf"))


def check_calm(record: Record) -> list[str]:
    """What is wrong with it where nothing has happened."""
    return [f"{record.name}: {gap}, although nothing has happened" for gap in _gaps(record) if gap.reason != "overflow"]


def check_told(gaps: Iterable[Gap], told: Collection[Gap]) -> list[str]:
    """What is wrong with `told`, the gaps of one who keeps only the newest messages, so that nobody can tell what it
    has missed. Of the lost connections in `gaps` somebody else on the same one was told. It was, too: later perhaps,
    and of several as one."""
    return [
        f"it was not told of {gap}"
        for gap in gaps
        if gap.reason != "overflow" and gap.since is not None
        if not any(
            other.since is None or (other.since < gap.since + SAME and other.at > gap.at - AT_ONCE) for other in told
        )
    ]


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
    before the subscriber came, and was found out later."""
    begun = _begun(record, sent)
    last = record.sent_before
    for event in record.events:
        if isinstance(event, Notify):
            last = max(last, begun.get(event[:3], last))
        elif event.reason != "overflow" and event.since is not None and event.since < last - on_its_way:
            yield f"{event} begins before {last}, when the last message before it was sent"


def _begun(record: Record, sent: Mapping[str, Sequence[Sent]]) -> dict[tuple[str, str, int], float]:
    return {
        (channel, one.publisher, one.number): one.begun for channel in record.channels for one in sent.get(channel, ())
    }


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
    until: float,
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
        if one is None and record.ended:  # and nobody knows how much of the rest it was there for
            unclear.update(place for place, _ in between)
            missing = [each for each in missing if each.ended < until]
        wrong += _check_missing(record, channel, missing, between, on_its_way)
        if between and not (one is None and record.ended):
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
