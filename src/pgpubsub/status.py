"""What a hub tells about itself: its state, its counters, and what happens to it as it happens. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pgpubsub.errors import PubSubError
from pgpubsub.events import GapReason

__all__ = ["Happening", "HubState", "HubStats", "HubStatus", "Observation", "SubscriptionStats"]


class HubStatus(StrEnum):
    """The state of a hub in one word."""

    IDLE = "idle"
    """Not used yet, so not connected."""
    CONNECTING = "connecting"
    """Without a connection that works, and trying."""
    LIVE = "live"
    """Connected, and notifications were seen to arrive."""
    FAILED = "failed"
    """It has given up, or was refused at its start. It will not become live any more."""
    CLOSED = "closed"
    """Closed by its owner."""


@dataclass(frozen=True, slots=True)
class HubState:
    """What state a hub is in, and why. It prints as one line for a log or a health page.

    >>> from datetime import UTC
    >>> print(HubState(HubStatus.LIVE, datetime(2026, 1, 1, tzinfo=UTC), None, None))
    live since 2026-01-01 00:00:00+00:00
    """

    status: HubStatus

    since: datetime
    """When it came into this state (aware, UTC)."""

    error: PubSubError | None
    """Why it is not live; None when it is."""

    sending_error: PubSubError | None
    """Why nothing can be sent at present; None when something can. Receiving does not depend on it."""

    @property
    def live(self) -> bool:
        """Whether notifications arrive."""
        return self.status is HubStatus.LIVE

    def __str__(self) -> str:
        text = f"{self.status} since {self.since.isoformat(' ', 'seconds')}"
        if self.error is not None:
            text += f": {self.error}"
        if self.sending_error is not None:
            text += f"; cannot send: {self.sending_error}"
        return text


@dataclass(frozen=True, slots=True)
class SubscriptionStats:
    """One subscription in figures."""

    channels: tuple[str, ...]
    """Its channels, sorted."""
    delivered: int
    """Notifications that it has taken."""
    dropped: int
    """Notifications that did not fit into its buffer; with the policy `latest`, those that a newer one replaced."""
    gaps: int
    """Gaps that it has taken."""
    depth: int
    """Events in its buffer."""
    bytes: int
    """Bytes of payload in its buffer."""


@dataclass(frozen=True, slots=True)
class HubStats:
    """A hub in figures. Counters include subscriptions that have ended."""

    delivered: int
    """Notifications taken by all subscriptions."""
    dropped: int
    """Notifications that did not fit into a buffer."""
    gaps: int
    """Gaps taken by all subscriptions."""
    received: int
    """Notifications that came from the server, those included that tell readers of streams."""
    appended: int
    """Entries appended to streams by `append` and `append_many`, and acknowledged."""
    sent: int
    """Notifications sent by `notify` and acknowledged."""
    reconnects: int
    """Connections that replaced a lost one."""
    heartbeat_seconds: float | None
    """How long the last heartbeat took from here to the server and back (None: there was none yet)."""
    subscriptions: tuple[SubscriptionStats, ...]
    """The open ones."""


Happening = Literal[
    "live",
    "connect_failed",
    "lost",
    "gap",
    "heartbeat",
    "appended",
    "append_failed",
    "sent",
    "send_failed",
    "handled",
    "handling_failed",
    "lease_lost",
    "too_slow",
]
"""What `Observation` tells of."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Something that happened to a hub, for metrics, traces and logs: see the argument `observe`.

    ==================  ==================================================================================
    name                when, and what `seconds` and `detail` say
    ==================  ==================================================================================
    live                notifications arrive; seconds since the connection was lost, or since the start
    connect_failed      an attempt to connect failed; for which connection, and why
    lost                a connection was lost; which one ("listening", "sending", "appending"), and why
    gap                 subscribers of `channels`, or readers of these streams, were told of a gap; why
    heartbeat           a heartbeat came back; seconds from here and back
    appended            entries were appended to the streams `channels`; seconds that the call took
    append_failed       they were not, or perhaps not; seconds that the call took, and why
    sent                a notification on `channels` was acknowledged; seconds that the call took
    send_failed         it was not; seconds that the call took, and why
    handled             entries of the stream `channels` were acknowledged; seconds since they were handed out
    handling_failed     they failed; seconds since they were handed out, and why
    lease_lost          what consumers of the stream `channels` had in hand is lost to them; why
    too_slow            a subscription with the policy `close` on `channels` was ended
    ==================  ==================================================================================
    """

    name: Happening
    channels: tuple[str, ...] = ()
    seconds: float | None = None
    detail: str = ""
    link: str = ""
    """Of `lost` and `connect_failed`: which connection, "listening", "sending" or "appending"."""
    reason: GapReason | None = None
    """Of `gap`."""
    group: str = ""
    """Of `handled`, `handling_failed` and `lease_lost`: the group that the entries were handed out to."""
    count: int | None = None
    """Of `sent`, `appended`, `handled` and their failures: how many notifications or entries these were."""
