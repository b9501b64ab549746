"""What comes on channels, counted. What it is does not matter, apart from the last: so a flood needs no memory."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from pgpubsub.cli.top.figures import Channel
from pgpubsub.errors import PubSubError
from pgpubsub.events import Notify
from pgpubsub.threads.hub import Hub
from pgpubsub.threads.subscription import Subscription

__all__ = ["OWN_NAME", "Ears"]

OWN_NAME = f"pgpubsub top {os.getpid()}@{socket.gethostname()}".encode()[:63].decode(errors="ignore")
"""By which our own sessions are known, and left out."""

RETRY = 5.0
"""Seconds after which a hub that was refused is tried again."""
MOST = 500
"""Characters of a payload that are kept."""


class Ears:
    """Listens to channels, whose names have been checked, in threads of its own; if it is refused, it tries again.

    `on_settled` is called in one of them when it listens, or was refused.
    """

    def __init__(self, conninfo: str, channels: Sequence[str], on_settled: Callable[[], None]) -> None:
        self._conninfo = conninfo
        self._last: dict[str, str | None] = dict.fromkeys(channels)
        self._on_settled = on_settled
        self._closed = threading.Event()
        self._hub: Hub | None = None
        self._subscriptions: dict[str, Subscription[Notify[str]]] = {}
        self._refused = ""
        self._thread = threading.Thread(target=self._listen, name="pgpubsub top", daemon=True)
        self.settled = not channels
        if channels:
            self._thread.start()

    @property
    def trouble(self) -> str | None:
        """Why nothing is heard at present; None if all is well."""
        if not self._last or self._closed.is_set():
            return None
        if not self._subscriptions or self._hub is None:
            return self._refused or "connecting"
        state = self._hub.state
        return None if state.live else str(state.error or state)

    def heard(self) -> tuple[Channel, ...]:
        """What came on each channel so far, in the order in which they were named."""
        return tuple(self._of(name) for name in self._last)

    def close(self, patience: float) -> None:
        """Stop listening; wait for that no longer than `patience` seconds."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(patience)

    def _of(self, name: str) -> Channel:
        subscription = self._subscriptions.get(name)
        if subscription is None:
            return Channel(name, 0, 0, None)
        while (event := subscription.get_nowait()) is not None:
            if isinstance(event, Notify):
                self._last[name] = event.payload[:MOST]
        stats = subscription.stats()
        return Channel(name, stats.delivered + stats.dropped, stats.gaps, self._last[name])

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                with ExitStack() as stack:
                    self._hub = stack.enter_context(Hub(self._conninfo, application_name=OWN_NAME))
                    # With "latest" the buffer holds one event, and says how many that one has replaced.
                    self._subscriptions = {
                        name: stack.enter_context(self._hub.subscribe(name, overflow="latest")) for name in self._last
                    }
                    self._settle()
                    self._closed.wait()
            except PubSubError as error:
                self._subscriptions = {}
                self._refused = str(error)
                self._settle()
            self._closed.wait(RETRY)

    def _settle(self) -> None:
        self.settled = True
        self._on_settled()
