"""What has to be true of what readers of a stream have got, given what was appended. Pure, as `checks`.

Every entry that is committed, once, each publisher's in order, and no gap. Where the servers have lost what they had
committed, whoever has got some of it is told so, and gets what there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from tests.chaos.checks import Gap

__all__ = ["Entry", "check_reader"]


class Entry(NamedTuple):
    """An entry that came."""

    publisher: str
    number: int


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
