"""Who gets what: from what a driver has received into the inboxes of those who want it.

An exception that a signal handler raises may end any of this anywhere, and nothing is lost or delivered
twice by it: an event leaves an inbox in the last step before it is handed over, and a delivery that was cut short is
recognised when it is repeated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from pgpubsub.drivers import DriverConnection
from pgpubsub.events import Gap, Notify

__all__ = ["Inbox", "deliver"]


class Inbox:
    """What one consumer has received and not yet taken, oldest first.

    To take an event, look at `queue[0]`, and when nothing remains but to hand it over, `del queue[0]`: CPython
    runs no signal handler between that statement and the return or yield that follows.
    """

    __slots__ = ("__weakref__", "delivered", "queue")

    def __init__(self) -> None:
        self.queue: deque[Notify | Gap] = deque()
        self.delivered: Notify | None = None
        """The event delivered last, whether or not it was taken since."""

    def forget(self, channels: Collection[str]) -> None:
        """Drop what came on `channels`."""
        self.queue = deque(e for e in self.queue if isinstance(e, Gap) or e.channel not in channels)


def deliver(
    driver: DriverConnection,
    owners: Callable[[str], Collection[Inbox]],
    reader: Inbox,
    unwanted: Collection[str] = (),
) -> None:
    """Move all of `driver.records` to the inboxes of their channels' owners.

    `reader` gets what nobody listens to through us, such as a channel that the user listened to with a
    statement of their own; `unwanted` are channels on which that is merely late.
    """
    records: deque[Any] = driver.records
    while records:
        record = records[0]
        # The event takes its record's place. So it is the same object when delivery is repeated, and the
        # inboxes that have it already are known by it.
        event: Notify = record if type(record) is Notify else driver.decode(record)
        records[0] = event
        inboxes = owners(event.channel)
        if not inboxes and event.channel not in unwanted:
            inboxes = (reader,)
        for inbox in inboxes:
            if inbox.delivered is not event:
                inbox.delivered = event
                inbox.queue.append(event)
        del records[0]
