"""What a server told at one moment. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pgpubsub.doctor.lag import Group, Groups

__all__ = [
    "Group",
    "Groups",
    "Listener",
    "Listeners",
    "Missing",
    "Queue",
    "Sample",
    "Server",
    "Stream",
    "Streams",
    "Unseen",
]


@dataclass(frozen=True, slots=True)
class Unseen:
    """What could not be looked at."""

    why: str


class Missing(Unseen):
    """What is not there."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Server:
    """Who was asked, and as whom."""

    database: str
    host: str
    port: int
    release: str
    role: str
    in_recovery: bool
    sees_all: bool
    """Whether the role is shown what other roles' sessions do."""
    since: datetime
    """When we connected."""


@dataclass(frozen=True, slots=True)
class Queue:
    """The notification queue, which all databases of the server share."""

    usage: float
    """0 to 1."""
    waiting: int
    """Sessions that wait for the lock that one transaction at a time has while it notifies and commits."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A session that listens, as far as can be told."""

    pid: int
    application: str
    database: str
    state: str | None
    """None: hidden from our role."""
    seconds: float | None
    """In its transaction if it is in one, else in this state."""
    waits_for: str | None
    troublesome: bool
    """It takes no notifications: it is in a transaction, or its client does not read."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Sessions that listen, other than our own: the troublesome first."""

    total: int
    hidden: int
    """Sessions of other roles, of which it cannot be told whether they listen."""
    sessions: tuple[Listener, ...]


@dataclass(frozen=True, slots=True)
class Stream:
    """A durable stream."""

    name: str
    appended: int | None
    """Entries that became visible since the last sample; None: there was none."""
    at_least: bool
    """Whether they are more, and were not counted."""
    age: float | None
    """Seconds since its newest entry was appended; None: it has no entry."""


@dataclass(frozen=True, slots=True)
class Streams:
    """Those with the newest entries."""

    total: int
    streams: tuple[Stream, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """What a server told, at one moment."""

    time: float
    """On this process's monotonic clock, in seconds."""
    at: datetime
    server: Server
    queue: Queue | Unseen
    listeners: Listeners | Unseen
    streams: Streams | Unseen
    groups: Groups | Unseen
