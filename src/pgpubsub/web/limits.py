"""What one client may take up."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic
from typing import Literal

from pgpubsub.web.problems import Problem

__all__ = ["Limits", "Rates"]

NUMBERS = ("subscriptions", "topics", "buffer", "buffer_bytes", "message_bytes", "rate", "stalled", "clients")

KNOWN = 10_000
"""Clients whose rate is remembered. Of more than that, those that have been quiet for the longest are forgotten."""


@dataclass(frozen=True, slots=True)
class Limits:
    """See the module."""

    subscriptions: int = 100
    """Channels and streams that a client follows over one connection."""
    topics: int = 20_000
    """Channels and streams that are followed in one process, by all clients together: each takes some of its memory,
    and a stream some of the database's time, whether there is such a stream or not."""
    buffer: int = 1000
    """Events of one channel or stream that a client may be behind."""
    buffer_bytes: int = 8 << 20
    """Bytes that these have together."""
    message_bytes: int = 1 << 20
    """Bytes of a message that a client sends."""
    rate: float = 100.0
    """Messages that a client sends by POST, frames over WebSockets, and channels and streams asked for by GET that
    nobody follows yet, in a second, on the average of ten."""
    slow: Literal["skip", "close"] = "skip"
    """What becomes of a client that is further behind on a channel. `skip`: it goes on with what comes next, and a gap
    says how many it has missed. `close`: its connection is ended. (What is missing of a stream is read from it.)"""
    stalled: float = 30.0
    """Seconds after which a client is cut off that takes nothing of what was sent to it."""
    clients: int = 20_000
    """Connections that stay, of all clients together."""

    @property
    def frame_bytes(self) -> int:
        """Bytes of a WebSocket's frame: JSON may take two for one, and there are other fields."""
        return 2 * self.message_bytes + 4096

    def __post_init__(self) -> None:
        for name in NUMBERS:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is to be above 0, not {getattr(self, name)}")
        if self.slow not in ("skip", "close"):
            raise ValueError(f"slow is 'skip' or 'close', not {self.slow!r}")


class Rates:
    """How often each client has done something lately: a token bucket each.

    Args:
        rate: how often it may, in a second.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._burst = max(1.0, 10 * rate)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, count: int = 1) -> None:
        """Note that `client` does something, or as many things as that: more than it ever may count as what it may.

        Raises:
            Problem: 429, it has done so too often.
        """
        now = monotonic()
        count = min(count, int(self._burst))
        left, at = self._left.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        self._left[client] = (left - count if left >= count else left, now)
        if len(self._left) > KNOWN:
            self._left.popitem(last=False)
        if left < count:
            wait = (count - left) / self._rate
            raise Problem(429, "too-often", f"more than {self._rate:g} a second: wait {wait:.1f} s", retry_after=wait)
