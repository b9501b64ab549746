"""Who gets what: from what a driver has received into the inboxes of those who want it.

An exception that a signal handler raises may end any of this anywhere, and nothing is lost or delivered twice by
it. CPython runs signal handlers after calls, at function entry and at backward jumps, and not between plain
statements such as an assignment and a `del`: so what moves from one place to another does so in two such
statements, with nothing between them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from pgpubsub.channel import Types
from pgpubsub.core.frames import Partial, Unjoined, join, unfinished
from pgpubsub.core.routing import route
from pgpubsub.drivers import DriverConnection
from pgpubsub.events import Gap, GapReason, Notify
from pgpubsub.logs import EventLog, Names

__all__ = ["Delivery", "Inbox", "warn_of"]

logger = EventLog("gap")


class Inbox:
    """What one consumer has received and not yet taken, oldest first.

    To take an event, look at `queue[0]`, have it decoded by `types`, and when nothing remains but to hand it over,
    `del queue[0]`, directly before the return or yield.
    """

    __slots__ = ("__weakref__", "queue", "reported", "types")

    def __init__(self) -> None:
        self.queue: deque[Notify | Gap] = deque()
        self.reported = 0
        """Number of the newest gap's report, by which a repetition is known."""
        self.types = Types()
        """Those of the consumer's channels that have a type."""

    def report(self, number: int, gap: Gap) -> None:
        """Put `gap` into the stream, once for each number."""
        if self.reported != number:
            self.reported = number
            self.queue.append(gap)

    def forget(self, channels: Collection[str]) -> None:
        """Drop what came on `channels`, and their types."""
        for channel in channels:
            self.types.pop(channel, None)
        self.queue = deque(e for e in self.queue if isinstance(e, Gap) or e.channel not in channels)


def warn_of(gap: Gap) -> None:
    """Log a gap that nobody asked to see."""
    logger.warning(
        "gap",
        "notifications may have been lost on %(channels)s since %(since)s: %(detail)s",
        reason=str(gap.reason),
        channels=Names(gap.channels),
        since=str(gap.since),
        detail=gap.detail,
    )


class Delivery:
    """Moves notifications from a driver to inboxes.

    Args:
        owners: returns the inboxes that want a channel.
        max_payload: bytes of a payload that is put together, at most.
        since: returns the time until when everything was delivered.
    """

    def __init__(
        self, owners: Callable[[str], Collection[Inbox]], max_payload: int, since: Callable[[], datetime]
    ) -> None:
        self.max_payload = max_payload
        self.unjoined = 0
        """Messages that could not be put together."""
        self._owners = owners
        self._since = since
        self._partial: Partial | None = None
        self._planned: list[tuple[Inbox, Sequence[Notify | Gap]]] = []  # the last comes first

    @property
    def unfinished(self) -> str | None:
        """The message whose beginning is all that has arrived and was not delivered."""
        return unfinished(self._partial)

    def restart(self) -> None:
        """A new connection: there will be no end to what began on the last one."""
        self._partial = None

    def deliver(
        self, driver: DriverConnection, reader: Inbox, *, late: Collection[str] = (), covered: Collection[str] = ()
    ) -> None:
        """Move all of `driver.records` to the inboxes of their channels' owners.

        Args:
            reader: gets what nobody listens to through us, such as a channel that the user listened to with a
                statement of their own.
            late: channels that were unlistened; what nobody wants of them any more is dropped.
            covered: channels whose gap is still to be reported, and covers whatever has come on them.
        """

        def takers(channel: str) -> Collection[Inbox]:
            if channel in covered:
                return ()
            return self._owners(channel) or (() if channel in late else (reader,))

        self._carry_out()
        records = driver.records
        count = len(records)
        if count:
            runs, partial = join(self._partial, driver.decode(records[:count]), self.max_payload)
            planned: list[tuple[Inbox, Sequence[Notify | Gap]]] = []
            unjoined = self.unjoined
            for run in reversed(runs):
                if isinstance(run, Unjoined):
                    gap = Gap(GapReason.INCOMPLETE, (run.channel,), self._since(), 1, run.why)
                    planned += [(inbox, (gap,)) for inbox in takers(run.channel)]
                    unjoined += 1
                else:
                    planned += [(inbox, chosen) for chosen, inboxes in route(run, takers) for inbox in inboxes]
            self._planned = planned
            self._partial = partial
            self.unjoined = unjoined
            del records[:count]
            self._carry_out()

    def _carry_out(self) -> None:
        planned = self._planned
        while planned:
            inbox, events = planned[-1]
            inbox.queue += events
            del planned[-1]
