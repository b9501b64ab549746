"""What the demonstration does: send and receive, lose the connection, go on. Nothing here knows how it is shown.

Sender and subscriber have a connection each and take turns in one thread, so nothing here needs a lock.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from itertools import cycle
from time import monotonic
from typing import Protocol

from pgpubsub.classic.pubsub import PubSub
from pgpubsub.cli.demo.ledger import Ledger, ranges
from pgpubsub.events import Gap, Notify

__all__ = ["BURST", "CHANNEL", "FRAMES_PER_SECOND", "Audience", "Mood", "Story"]

CHANNEL = "orders"
FRAMES_PER_SECOND = 20
BURST = 4
"""Notifications sent in a row, once per frame."""

PATIENCE = 15.0
"""Seconds that the subscriber has to come back, or to receive the last notification, before we call it a failure."""

GOODS = ("green tea", "black tea", "coffee", "cocoa", "lemonade")


class Mood(Enum):
    """What kind of news something is."""

    GOOD = auto()
    FIRST = auto()
    KILLED = auto()
    GAP = auto()
    LIVE = auto()


class Audience(Protocol):
    """Whoever the story is told to."""

    def tell(self, mood: Mood, text: str) -> None:
        """Something new has happened."""

    def look(self) -> None:
        """A frame has passed."""


class Story:
    """`between_frames` is called often, and may raise to end it."""

    def __init__(
        self,
        subscriber: PubSub,
        sender: PubSub,
        ledger: Ledger,
        audience: Audience,
        between_frames: Callable[[], None],
    ) -> None:
        self._subscriber = subscriber
        self._sender = sender
        self._ledger = ledger
        self._audience = audience
        self._between_frames = between_frames
        self._goods = cycle(GOODS)

    def play(self, seconds: float) -> None:
        """Send for so long, or longer where the subscriber takes its time to recover."""
        rate = BURST * FRAMES_PER_SECOND
        self._subscriber.listen(CHANNEL)
        self._tell(Mood.GOOD, f'subscriber: pubsub.listen("{CHANNEL}"), on backend {self._subscriber.backend_pid}')
        self._tell(Mood.GOOD, f'sender: pubsub.notify("{CHANNEL}", ...), {rate} times a second for {seconds:g} s')
        start = self._frame_ends = monotonic()
        while (passed := monotonic() - start) < seconds or (not self._ledger.recovered and passed < seconds + PATIENCE):
            if passed >= seconds / 2 and not self._ledger.killed_at:
                self._kill()
            self._frame()
        deadline = monotonic() + PATIENCE
        while self._ledger.last_received < len(self._ledger.sent_at) and monotonic() < deadline:
            self._take(1 / FRAMES_PER_SECOND)
            self._between_frames()

    def _frame(self) -> None:
        self._frame_ends = max(self._frame_ends + 1 / FRAMES_PER_SECOND, monotonic())
        for _ in range(BURST):
            number = self._ledger.send(monotonic())
            self._sender.notify(CHANNEL, f"{number} {next(self._goods)}")
            self._take(0)
        while (left := self._frame_ends - monotonic()) > 0:
            self._take(left)
        self._audience.look()
        self._between_frames()

    def _take(self, timeout: float) -> None:
        for event in self._subscriber.get_events(timeout, yield_gaps=True):
            if isinstance(event, Gap):
                self._ledger.lose(event, monotonic())
                self._tell(Mood.GAP, f"Gap: {event.reason}, channels {', '.join(event.channels)}, {event.detail}")
            else:
                self._arrived(event)

    def _arrived(self, event: Notify) -> None:
        number = int(event.payload.partition(" ")[0])
        hole = self._ledger.arrive(number, event, monotonic())
        if len(self._ledger.received) == 1:
            latency = self._ledger.received[number].latency * 1e3
            self._tell(Mood.FIRST, f"first notification received: {event.payload!r}, after {latency:.1f} ms")
        if hole is not None:
            count = f"{len(hole.missing)} missing: {ranges(hole.missing)}" if hole.missing else "none missing"
            pid = self._subscriber.backend_pid
            self._tell(Mood.LIVE, f"live again on backend {pid}, {hole.outage * 1e3:.0f} ms after the kill; {count}")

    def _kill(self) -> None:
        pid = self._subscriber.backend_pid
        self._ledger.killed_at = monotonic()
        self._sender.conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        self._tell(Mood.KILLED, f"connection killed: SELECT pg_terminate_backend({pid})")

    def _tell(self, mood: Mood, text: str) -> None:
        self._audience.tell(mood, text)
