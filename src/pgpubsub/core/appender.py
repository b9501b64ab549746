"""Which entries are appended together: `core.grouping`, with the limits of a statement, and two rules more.

Entries with an idempotency key need another statement, so they are not mixed with the others; and since appending them
twice does no harm, they are appended again when nobody knows whether they were. Those that another transaction is just
about to store wait aside until it has come to its end (`on_stored`, `resume`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from pgpubsub.core import grouping
from pgpubsub.core.entries import NewEntry

__all__ = ["Appender", "Call"]

ENTRIES = 1000
"""Entries in a batch, at most, unless one call has more. They take a server some milliseconds."""

ENTRIES_ONCE = 100
"""Of those with idempotency keys, each of which takes one of the server's locks."""

CHARACTERS = 1 << 20
"""Characters of payload and headers in a batch, at most, unless one call has more."""


class Call(grouping.Call[NewEntry]):
    """Entries to be appended in one transaction. One with an idempotency key is alone."""

    __slots__ = ()

    def __init__(self, items: Sequence[NewEntry]) -> None:
        super().__init__(items, repeatable=items[0].idempotency_key is not None)

    @staticmethod
    def name(items: Sequence[NewEntry]) -> str:
        count = len(items)
        return f"the append to stream {items[0].name!r}" + (f" and {count - 1} more" if count > 1 else "")


class Appender(grouping.Grouping[NewEntry]):
    """See the module."""

    # What a constraint, a policy or a trigger of the user's says may be about one entry. The others are about the
    # connection, the transaction, what is not there, deadlocks, resources, limits, operators and the system.
    about_one = re.compile("(?!08|25|3D|3F|40|42P|53|54|55|57|58|XX)")

    def on_stored(self, ids: Sequence[int | None]) -> list[grouping.Call[NewEntry]]:
        """The oldest of what is in flight is committed, and these are the ids of its entries. None: another transaction
        is about to store that one. Returns the calls that are to wait aside for that."""
        batch = self._flying[0]
        busy: list[grouping.Call[NewEntry]] = []
        start = 0
        for call in batch.calls:
            call.returned = ids[start : start + len(call.items)]
            start += len(call.items)
            if None in call.returned and not call.told:
                busy.append(call)
        if busy:
            stored = tuple([call for call in batch.calls if call not in busy])
            self._flying[0] = grouping.Batch(stored, batch.is_part)
        self.on_sent()
        return busy

    def resume(self, calls: Collection[grouping.Call[NewEntry]]) -> None:
        """Try again with these calls, which waited aside."""
        if self._failure is not None:
            self._tell_all(calls, self._failure)
        elif calls := tuple([call for call in calls if not call.told]):
            self._doubtful.append(calls)

    def _together(self) -> list[grouping.Call[NewEntry]]:
        queue = self._queue
        calls: list[grouping.Call[NewEntry]] = []
        count = characters = 0
        limit = ENTRIES
        while queue and count < limit and characters <= CHARACTERS:
            call = queue[0]
            if call.called_off:
                self._settle(call)
            else:
                if not calls:
                    limit = ENTRIES_ONCE if call.repeatable else ENTRIES
                count += len(call.items)
                characters += sum([entry.size for entry in call.items])
                if calls and (count > limit or characters > CHARACTERS or call.repeatable != calls[0].repeatable):
                    break
                calls.append(call)
            queue.popleft()
        return calls
