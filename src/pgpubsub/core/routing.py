"""Who gets what of a batch of notifications."""

from __future__ import annotations

from collections.abc import Callable, Collection

from pgpubsub.core.registry import Owner
from pgpubsub.events import Notify

__all__ = ["route"]


def route(
    events: list[Notify], owners: Callable[[str], Collection[Owner]]
) -> list[tuple[list[Notify], Collection[Owner]]]:
    """Divide `events` among the owners of their channels: to whom each list goes. Lists may be shared, so nobody
    may change them.

    Every owner appears once, and its list is in the order in which the events came. Most batches are of one
    channel and go as they are; for the others the work grows with the events and with the owners, not with
    their product.

    >>> a, b = Notify(1, "a", ""), Notify(1, "b", "")
    >>> route([a, b, a], {"a": ["one", "two"], "b": ["two"]}.__getitem__)
    [([Notify(1, 'a', ''), Notify(1, 'a', '')], ['one']), ([Notify(1, 'a', ''), Notify(1, 'b', ''), \
Notify(1, 'a', '')], ['two'])]
    """
    by_channel: dict[str, list[Notify]] = {}
    for event in events:
        by_channel.setdefault(event[1], []).append(event)
    if len(by_channel) == 1:
        return [(events, owners(events[0][1]))]
    wanted: dict[Owner, list[str]] = {}
    for channel in by_channel:
        for owner in owners(channel):
            wanted.setdefault(owner, []).append(channel)
    alike: dict[tuple[str, ...], list[Owner]] = {}
    for owner, channels in wanted.items():
        alike.setdefault(tuple(channels), []).append(owner)
    return [
        (by_channel[channels[0]] if len(channels) == 1 else [e for e in events if e[1] in channels], together)
        for channels, together in alike.items()
    ]
