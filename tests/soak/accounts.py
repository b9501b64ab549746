"""Whether each has got everything, in constant memory: whoever sends numbers its messages, and whoever receives knows
the last.

A message that is missing is excused by a gap in its place, or by an outcome that nobody knew (`SendUncertain`).
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from time import monotonic
from typing import NamedTuple

__all__ = ["Accounts", "Cursor", "Message", "Source", "read"]

MOST = 50
"""Errors of which there is a record; the others are counted."""

DOUBTS = 2000
"""Messages of unknown fate that a source remembers."""


class Message(NamedTuple):
    """What a text says."""

    source: str
    number: int
    at: float
    """When it was sent, by CLOCK_MONOTONIC."""


def read(text: str) -> Message:
    """What a text says.

    >>> read("p|3|17.5|padding")
    Message(source='p', number=3, at=17.5)
    """
    source, number, at, _ = text.split("|", 3)
    return Message(source, int(number), float(at))


class Source:
    """One who sends to one place. Not to be shared among threads.

    Args:
        name: which no other has.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.last = 0
        """The number of its last message."""
        self.settled = 0
        """That of the last one that is known to be committed."""
        self.doubtful: deque[int] = deque(maxlen=DOUBTS)
        """Numbers of those that perhaps were not sent, or were not."""

    def next(self, padding: int = 0) -> str:
        """The text of the next message."""
        self.last += 1
        return f"{self.name}|{self.last}|{monotonic():.6f}|{'x' * padding}"

    def committed(self) -> None:
        """All so far are."""
        self.settled = self.last

    def doubt(self, count: int = 1) -> None:
        """The last ones may be missing."""
        self.doubtful.extend(range(self.last - count + 1, self.last + 1))


class Cursor:
    """What one receiver has got from some sources. To be used by one thread at a time.

    Args:
        name: whose.
        sources: from which it gets everything.
        newest_only: whether it gets only what is newest, as it chose.
        from_now: whether it begins in the midst, with whatever comes.
    """

    def __init__(
        self,
        accounts: Accounts,
        name: str,
        sources: tuple[Source, ...],
        *,
        newest_only: bool = False,
        from_now: bool = False,
    ) -> None:
        self.name = name
        self.sources = {source.name: source for source in sources}
        self._accounts = accounts
        self.newest_only = newest_only
        self._last: dict[str, int] = {} if from_now else dict.fromkeys(self.sources, 0)
        self._excused: set[str] = set()

    def came(self, text: str) -> Message | None:
        """A message. Returns it if it is new, and one of those sources'."""
        message = read(text)
        if message.source not in self.sources:
            return None
        last = self._last.get(message.source)
        excused = message.source in self._excused or self.newest_only or last is None
        self._excused.discard(message.source)
        if last is not None and message.number <= last:
            self._accounts.complain(f"{self.name}: {message.source} {message.number} came after {last}")
            return None
        if last is not None and message.number > last + 1 and not excused:
            doubtful = self.sources[message.source].doubtful
            missing = [number for number in range(last + 1, message.number) if number not in doubtful]
            if missing:
                words = f"{missing[:5]} missing ({len(missing)}) without a gap, before {message.number}"
                self._accounts.complain(f"{self.name}: {message.source} {words}")
        self._last[message.source] = message.number
        return message

    def gap(self) -> None:
        """From here it may have missed something of each."""
        self._excused.update(self.sources)

    def behind(self) -> list[str]:
        """Whose last message, which was committed, it has not got."""
        return [
            f"{self.name} of {source.name}: {self._last.get(source.name)} of {source.settled}"
            for source in self.sources.values()
            if self._last.get(source.name, 0) < source.settled and source.settled not in source.doubtful
        ]


class Accounts:
    """All sources, and those who have to get everything in the end."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}
        self.cursors: list[Cursor] = []
        self.complaints: list[str] = []
        self.count = 0
        """Of complaints."""
        self._lock = Lock()

    def source(self, name: str) -> Source:
        """A new one."""
        assert name not in self.sources
        self.sources[name] = Source(name)
        return self.sources[name]

    def cursor(self, name: str, *sources: Source, from_now: bool = False) -> Cursor:
        """That of somebody who stays to the last message, from the first or from now."""
        cursor = Cursor(self, name, sources, from_now=from_now)
        self.cursors.append(cursor)
        return cursor

    def passing(self, name: str, *sources: Source, newest_only: bool = False) -> Cursor:
        """That of somebody who comes in the midst, and leaves."""
        return Cursor(self, name, sources, newest_only=newest_only, from_now=True)

    def complain(self, words: str) -> None:
        """Something is wrong."""
        with self._lock:
            self.count += 1
            if len(self.complaints) < MOST:
                self.complaints.append(words)

    def behind(self) -> list[str]:
        """What is still to come."""
        return [words for cursor in self.cursors for words in cursor.behind()]
