"""A hub's own heartbeats: what makes each known as ours, and how long it took."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from time import monotonic

from pgpubsub.channel import Types
from pgpubsub.events import Gap, Notify
from pgpubsub.hubs.mailbox import Mailbox, buffer

__all__ = ["Beats"]


class Beats(Mailbox):
    """What subscribes to the heartbeat's channel: it measures how long our own take, and keeps nothing."""

    def __init__(self, hub: str, on_return: Callable[[float], None]) -> None:
        super().__init__(buffer(1, 1, "latest"), Types())
        self._prefix = hub
        self._number = 0
        self._begun_at: float | None = None
        self._on_return = on_return

    def next_payload(self) -> str:
        """What makes the next beat known as ours."""
        self._number += 1
        self._begun_at = monotonic()
        return self._payload

    @property
    def _payload(self) -> str:
        return f"{self._prefix} {os.getpid()} {self._number}"  # one that was made before a fork may be used in many

    def put(self, events: Collection[Notify], size: int) -> None:
        if self._begun_at is not None and any(event.payload == self._payload for event in events):
            self._on_return(monotonic() - self._begun_at)
            self._begun_at = None

    def report(self, gap: Gap) -> None:
        """Nobody misses a heartbeat."""

    def wake(self, count: int | None) -> None:
        """Nobody waits."""
