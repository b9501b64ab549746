"""What surrounds the session in a simulation: a clock with a future, a server with one connection, and subscribers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from heapq import heappop, heappush
from itertools import count

from pgpubsub import GapReason


class World:
    """A clock, and what is going to happen when."""

    def __init__(self, now: float) -> None:
        self.now = now
        self._future: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    @property
    def next_at(self) -> float | None:
        """When the next thing happens."""
        return self._future[0][0] if self._future else None

    def at(self, time: float, happen: Callable[[], None]) -> None:
        """`happen` at `time`."""
        heappush(self._future, (time, next(self._numbers), happen))

    def pass_time(self, until: float) -> None:
        """Let everything happen that does until then, and notice each as it happens."""
        while self._future and self._future[0][0] <= until:
            time, _, happen = heappop(self._future)
            self.now = max(self.now, time)
            happen()
        self.now = max(self.now, until)

    def stall(self, until: float) -> None:
        """The process is busy: what happens meanwhile is noticed afterwards."""
        self.now = max(self.now, until)

    def catch_up(self) -> None:
        """Notice what has happened."""
        self.pass_time(self.now)


class Server:
    """The truth about the present connection: what is listened to, and whether anything comes through."""

    def __init__(self) -> None:
        self.listening: set[str] = set()
        self.deaf_from: float | None = None
        """Since when notifications do not arrive (None: they do)."""
        self.answers = True
        """Whether statements are answered: behind a pooler they are though nothing arrives."""

    def connect(self) -> None:
        """A connection that works."""
        self.listening.clear()
        self.deaf_from = None
        self.answers = True

    def fall_silent(self, now: float, *, answers: bool) -> None:
        """From now on nothing arrives, and nobody is told."""
        if self.deaf_from is None:
            self.deaf_from = now
        self.answers = self.answers and answers

    def carries(self, time: float) -> bool:
        """Whether a notification that was due at `time` has arrived."""
        return self.deaf_from is None or time < self.deaf_from

    def run(self, script: str) -> None:
        """Do what the statements say, as a server reads them."""
        for statement in script.split("; UNLISTEN "):
            for number, part in enumerate(statement.split("; LISTEN ")):
                if part == "UNLISTEN *":
                    self.listening.clear()
                    continue
                name = part.removeprefix("UNLISTEN ").removeprefix("LISTEN ")[1:-1].replace('""', '"')
                if part.startswith("LISTEN ") or number > 0:
                    self.listening.add(name)
                else:
                    self.listening.discard(name)


class Subscribers:
    """Who wants what, and what they have to be told of what was lost."""

    def __init__(self, channels: Iterable[str]) -> None:
        self.wanted: dict[str, set[int]] = {channel: set() for channel in channels}
        self.owed: dict[str, set[int]] = {}
        """Who wanted what was lost and still does, until it is reported."""
        self.since = 0.0
        self.reason = GapReason.CONNECTION_LOST
        self.losses = 0
        """Of a channel each."""
        self.reports = 0
        """Of a channel each."""

    @property
    def desired(self) -> set[str]:
        """What anybody wants."""
        return {channel for channel, owners in self.wanted.items() if owners}

    def forget(self, owner: int, channel: str) -> None:
        """`owner` does not want `channel` any more, and not to know either what was lost on it."""
        self.wanted[channel].discard(owner)
        if owner in self.owed.get(channel, ()):
            self.owed[channel].discard(owner)
            if not self.owed[channel]:
                del self.owed[channel]
                self.losses -= 1

    def lose(self, acknowledged: Collection[str], since: float, reason: GapReason) -> None:
        """The session is gone that listened to what is `acknowledged`."""
        lost = self.desired.intersection(acknowledged)
        if lost and not self.owed:  # one that comes before the report of another is told with it
            self.since = since
        self.reason = reason
        self.losses += len(lost - self.owed.keys())
        for channel in lost:
            self.owed.setdefault(channel, set()).update(self.wanted[channel])

    def on_report(self, channels: Collection[str]) -> None:
        """They have been told."""
        self.reports += len(channels)
        for channel in channels:
            del self.owed[channel]
