"""Who gets what of a batch of notifications."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import chain

from pgpubsub.core.registry import Owner
from pgpubsub.events import Notify

__all__ = ["route"]


def route(
    events: list[Notify], owners: Callable[[str], Collection[Owner]]
) -> list[tuple[list[Notify], Collection[Owner]]]:
    """Divide `events` among the owners of their channels: to whom each list goes. Lists may be shared, so nobody
    may change them.

    Every owner appears once, and its list is in the order in which the events came. Most batches are of one
    channel and go as they are; for the others the work grows with what is handed out, not with the product of
    the events and the owners.

    >>> a, b = Notify(1, "a", ""), Notify(1, "b", "")
    >>> route([a, b, a], {"a": ["one", "two"], "b": ["two"]}.__getitem__)
    [([Notify(1, 'a', ''), Notify(1, 'a', '')], ['one']), ([Notify(1, 'a', ''), Notify(1, 'b', ''), \
Notify(1, 'a', '')], ['two'])]
    """
    if len({event[1] for event in events}) == 1:
        return [(events, owners(events[0][1]))]
    places: dict[str, list[int]] = {}
    for place, event in enumerate(events):
        places.setdefault(event[1], []).append(place)
    wanted: dict[Owner, list[str]] = {}
    for channel in places:
        for owner in owners(channel):
            wanted.setdefault(owner, []).append(channel)
    alike: dict[tuple[str, ...], list[Owner]] = {}
    for owner, channels in wanted.items():
        alike.setdefault(tuple(channels), []).append(owner)
    return [
        ([events[place] for place in sorted(chain.from_iterable(map(places.__getitem__, channels)))], together)
        for channels, together in alike.items()
    ]
