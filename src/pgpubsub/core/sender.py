"""Which notifications go out together: `core.grouping`, with the limits of a statement, and one rule more.

As many notifications are delivered as were submitted. The server merges equal ones of a transaction, so equal calls go
out in different batches, several of which may share a round trip; within one call the repetitions become frames.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pgpubsub.core import grouping
from pgpubsub.core.frames import Message

__all__ = ["Call", "Sender"]

MESSAGES = 1000
"""Notifications in a batch, at most, unless one call has more. They take a server a millisecond or two."""

CHARACTERS = 1 << 20
"""Characters of payload in a batch, at most, unless one call has more. So nobody waits long for somebody else's."""


class Call(grouping.Call[Message]):
    """Notifications to be sent in one transaction."""

    __slots__ = ()

    @staticmethod
    def name(items: Sequence[Message]) -> str:
        count = len(items)
        return f"NOTIFY {items[0][0]!r}" + (f" and {count - 1} more" if count > 1 else "")


class Sender(grouping.Grouping[Message]):
    """See the module."""

    about_one = re.compile("22")  # data exceptions

    def _together(self) -> list[grouping.Call[Message]]:
        queue = self._queue
        calls: list[grouping.Call[Message]] = []
        seen: set[Message] = set()
        count = characters = 0
        while queue and count < MESSAGES and characters <= CHARACTERS:
            call = queue[0]
            if call.called_off:
                self._settle(call)
            else:
                messages = call.items
                count += len(messages)
                if len(messages) == 1:  # as most have
                    characters += len(messages[0][1])
                else:
                    characters += sum([len(text) for _, text in messages])
                if calls and (count > MESSAGES or characters > CHARACTERS):
                    break
                if not seen.isdisjoint(messages):
                    self._goes_on = True
                    break
                calls.append(call)
                if len(queue) > 1:
                    seen.update(messages)
            queue.popleft()
        return calls
