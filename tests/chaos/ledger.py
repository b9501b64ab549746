"""What the journals say, put together: what was sent, and what each subscriber and reader has got.

A round that was found right is forgotten, so that it does not grow.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from tests.chaos.checks import (
    Gap,
    Notify,
    Outcome,
    Record,
    Sent,
    check_calm,
    check_subscriber,
    check_told,
)
from tests.chaos.receiving import CLIENTS, SUBSCRIBERS
from tests.chaos.stream_checks import Entry, check_reader
from tests.chaos.texts import STREAMS

__all__ = ["MARKER", "Ledger"]

MARKER = "marker"
"""Who sends what ends a round."""

Key = tuple[str, str]
"""A part of the arena, and a name within it."""

NEVER = (float("inf"), float("inf"))

HUBS = ("Hub", "AsyncHub")

EXPECTED: dict[Key, tuple[str, ...]] = {
    **{(part, name): its.channels for part in HUBS for name, its in SUBSCRIBERS.items()},
    **{("clients", name): channels for name, (channels, _) in CLIENTS.items() if channels},
}
"""Subscribers, with their channels."""

READERS: dict[Key, str] = {
    **{(part, stream): stream for part in HUBS for stream in STREAMS},
    **{("clients", f"{name}: {stream}"): stream for name, (_, streams) in CLIENTS.items() for stream in streams},
}
"""Readers, with their stream."""


class Ledger:
    """See the module."""

    def __init__(self) -> None:
        self.committed = 0
        """Messages and entries, in all."""
        self.received = 0
        """Events, in all."""
        self.gaps: Counter[str] = Counter()
        """By reason, in all."""
        self.positions: dict[str, dict[str, str]] = defaultdict(dict)
        """Where readers are, by part and name."""
        self._forgetting = NEVER
        self._told: dict[Key, list[Gap]] = defaultdict(list)  # in this round
        self._told_before: dict[Key, list[Gap]] = defaultdict(list)  # in the one before
        self._doubtful: dict[str, set[Entry]] = defaultdict(set)  # by stream: those that the servers may have lost
        self._doubts: list[str] = []  # what nobody knows the outcome of
        self._strange: list[str] = []
        self._under_way: dict[tuple[str, int], tuple[float, str, str]] = {}
        self._sent: dict[str, dict[tuple[str, int], Sent]] = defaultdict(dict)  # by channel
        self._appended: dict[str, dict[Entry, Outcome]] = defaultdict(dict)  # by stream
        self._records: dict[Key, Record] = {}
        self._ended: list[Record] = []
        self._read: dict[Key, list[Entry | Gap]] = defaultdict(list)
        self._settled: dict[str, set[Entry]] = defaultdict(set)

    # -- what journals say

    def take_in(self, part: str, lines: Iterable[list[Any]], *, clock_was_set: bool = False) -> None:
        """What a part of the arena has written."""
        for what, at, *fields in lines:
            if what == "begin":
                self._on_begin(at, *fields)
            elif what == "end":
                self._on_end(at, *fields)
            elif what == "open":
                self._on_open((part, fields[0]), at, *fields[1:])
            elif what == "closed":
                self._on_closed((part, fields[0]), fields[1])
            elif what not in ("ready", "done"):
                self._on_event((part, fields[0]), what, at, fields[1:], clock_was_set)

    def on_marked(self, channel: str, number: int, begun: float, ended: float) -> None:
        """The end of a round was sent."""
        self._sent[channel][MARKER, number] = Sent(MARKER, number, begun, ended, "committed")

    def on_marked_stream(self, stream: str, number: int) -> None:
        """The same, in a stream: behind it nobody stands at an entry that is not there any more."""
        self._appended[stream][Entry(MARKER, number)] = "committed"

    def on_forgetting(self, since: float) -> None:
        """What the servers commit from then on they may lose."""
        self._forgetting = (since, float("inf"))

    def on_forgotten(self, until: float) -> None:
        """They have lost it, and lose nothing more."""
        self._forgetting = (self._forgetting[0], until)

    def on_killed(self, part: str) -> None:
        """It will not tell any more what became of what it has begun, nor get what has come for it."""
        if part == "publishers":
            for publisher, number in list(self._under_way):
                self._on_end(float("inf"), publisher, number, "uncertain")
        for key in [key for key in self._records if key[0] == part]:
            self._end(key)
            self._told_before[key].clear()
            self._told[key].clear()

    def _on_begin(self, at: float, publisher: str, number: int, kind: str, place: str) -> None:
        self._under_way[publisher, number] = (at, kind, place)
        if kind == "channel":
            self._sent[place][publisher, number] = Sent(publisher, number, at, float("inf"), "uncertain")
        else:
            self._appended[place][Entry(publisher, number)] = "uncertain"

    def _on_end(self, at: float, publisher: str, number: int, outcome: Outcome) -> None:
        self.committed += outcome == "committed"
        if outcome == "uncertain":
            self._doubts.append(f"{publisher} {number}")
        begun, kind, place = self._under_way.pop((publisher, number))
        if kind == "channel":
            self._sent[place][publisher, number] = Sent(publisher, number, begun, at, outcome)
        else:
            self._appended[place][Entry(publisher, number)] = outcome
            since, until = self._forgetting
            if since <= at and begun <= until and outcome != "not":
                self._doubtful[place].add(Entry(publisher, number))

    def _on_open(self, key: Key, at: float, channels: list[str], latest: bool) -> None:
        if key in self._records:
            self._strange.append(f"{', '.join(key)} came again, and had not gone")
        self._records[key] = Record(
            ", ".join(key), tuple(channels), at, latest, counts=key[0] in HUBS, wanders=key[0] not in HUBS
        )

    def _on_closed(self, key: Key, why: str) -> None:
        if not SUBSCRIBERS[key[1]].may_end(why):
            self._strange.append(f"{', '.join(key)}: {why}")
        self._end(key)

    def _on_event(self, key: Key, what: str, at: float, fields: list[Any], clock_was_set: bool) -> None:
        part, name = key
        self.received += what in ("notify", "entry")
        if what == "notify":
            self._records[key].events.append(Notify(fields[0], fields[1], fields[2], at))
        elif what == "gap":
            reason, channels, since, count = fields
            self.gaps[reason] += 1
            gap = Gap(reason, tuple(channels), None if clock_was_set else since, count, at)
            self._records[key].events.append(gap)
            self._told[key].append(gap)
        elif what == "entry":
            *entry, self.positions[part][name] = fields
            self._read[key].append(Entry(*entry))
        elif what == "stream gap":
            self.gaps[fields[0]] += 1
            self._read[key].append(Gap(fields[0], (), None, None))
        else:
            self._strange.append(f"{part}, {name}: {fields}")

    def _end(self, key: Key) -> None:
        record = self._records.pop(key)
        record.ended = True
        self._ended.append(record)

    # -- the end of a round

    def waiting(self, marker: int, stored: Mapping[str, Collection[Entry]]) -> list[str]:
        """Who has not got everything yet: this marker or a later one, and what is stored in its stream."""
        late = [", ".join(key) for key in EXPECTED if self._marked(key, marker) is None]
        for key, stream in READERS.items():
            if set(stored[stream]) - self._settled[stream] - set(self._read[key]):
                late.append(", ".join(key))
        return late

    def settle(
        self, marker: int, stored: Mapping[str, Collection[Entry]], on_its_way: float, *, calm: bool
    ) -> list[str]:
        """Say what is wrong, when nobody is waiting, and forget it all. `on_its_way` as in `check_subscriber`; `calm`
        if nothing has happened."""
        wrong, self._strange = self._strange, []
        if calm:
            wrong += [f"{one}: nobody knows what became of it, although nothing has happened" for one in self._doubts]
            wrong += [one for record in (*self._ended, *self._records.values()) for one in check_calm(record)]
        self._doubts.clear()
        for part in HUBS:
            told = self._told_before[part, "latest"] + self._told[part, "latest"]
            wrong += [f"{part}, latest: {one}" for one in check_told(self._told_before[part, "all"], told)]
        self._told_before, self._told = self._told, defaultdict(list)
        for record in self._ended:
            wrong += check_subscriber(record, self._all_sent(marker), on_its_way)
        self._ended = []
        for key in EXPECTED:
            wrong += self._settle_record(key, marker, on_its_way)
        for key, stream in READERS.items():
            new = set(stored[stream]) - self._settled[stream]
            sure = {entry for entry, outcome in self._appended[stream].items() if outcome == "committed"}
            never = {entry for entry, outcome in self._appended[stream].items() if outcome == "not"}
            wrong += [f"{entry} is in {stream}, and was taken back" for entry in sorted(never & new)]
            wrong += check_reader(
                ", ".join(key),
                self._read.pop(key, []),
                new,
                sure,
                doubtful=self._doubtful[stream],
                earlier=self._settled[stream],
            )
        for stream, entries in stored.items():
            self._settled[stream] |= set(entries)
        self._forget(marker)
        return wrong

    def _settle_record(self, key: Key, marker: int, on_its_way: float) -> list[str]:
        """Everything up to the marker; what is behind it belongs to the next round."""
        record, last = self._records[key], self._marked(key, marker)
        assert last is not None
        upon = record.events[last]
        assert isinstance(upon, Notify)
        rest = record.events[last + 1 :]
        del record.events[last + 1 :]
        wrong = check_subscriber(record, self._all_sent(marker), on_its_way)
        record.events[:] = rest
        record.opened = upon.at
        record.sent_before = self._sent[upon.channel][MARKER, upon.number].begun
        return wrong

    def _marked(self, key: Key, marker: int) -> int | None:
        """At which place the marker has come on each channel."""
        record = self._records.get(key)
        if record is None:
            return None
        first: dict[str, int] = {}
        for place, event in enumerate(record.events):
            if isinstance(event, Notify) and event.publisher == MARKER and event.number >= marker:
                first.setdefault(event.channel, place)
        return max(first.values()) if len(first) == len(EXPECTED[key]) else None

    def _all_sent(self, marker: int) -> dict[str, list[Sent]]:
        """Of several markers that end this round one has to come, and which is uncertain."""
        return {
            channel: [
                one._replace(outcome="uncertain") if one.publisher == MARKER and one.number >= marker else one
                for one in sent.values()
            ]
            for channel, sent in self._sent.items()
        }

    def _forget(self, marker: int) -> None:
        for sent in self._sent.values():
            for key, one in list(sent.items()):
                if one.outcome != "uncertain" and not (one.publisher == MARKER and one.number >= marker):
                    del sent[key]
        self._appended.clear()
        self._doubtful.clear()
        self._forgetting = NEVER
