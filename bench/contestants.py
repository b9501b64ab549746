"""What takes part: anything that can `open`, do one of the things below, and `close`.

To add a contestant, write such a class, in `peers` if it is a library of others, and name it in the lists of the parts
that it takes part in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Generic, NamedTuple, Protocol, TypeVar

__all__ = ["Arrival", "Contestant", "Counter", "Echo", "Entrant", "Publisher", "Receiver", "Role"]

C = TypeVar("C", covariant=True)


class Role(StrEnum):
    """What a contestant's figures are for."""

    SUBJECT = "subject"
    """pgpubsub, which has aims to meet."""

    PEER = "peer"
    """What it is compared with, used as its own manual has it."""

    LIMIT = "limit"
    """PostgreSQL's own programs, which nobody is quicker than; it is divided by, and is no peer."""

    BASELINE = "baseline"
    """The same thing without what is measured, such as a table without a trigger; it is divided by, and is no peer."""

    EXTRA = "extra"
    """For information: it neither has aims nor sets them."""


class Arrival(NamedTuple):
    """The last of the notifications that were asked for."""

    pid: int | None
    """None where the contestant does not tell."""
    channel: str
    payload: str
    at: int
    """`time.monotonic_ns()` when the consumer had it in its hands. The clock is the same in all processes."""


class Receiver(Protocol):
    """Receives what another process sends."""

    def open(self, dsn: str, channel: str) -> None:
        """Connect and listen to `channel`. It may have an attribute `quotes`, if it takes nothing but JSON: then text
        comes in quotes."""

    def receive(self, count: int) -> Arrival:
        """Wait for `count` notifications and give each to a consumer: a loop's body, or a callback, that has
        its pid, its channel and its payload, these two as `str`, and counts. Return the last. No more than
        `count` have been sent and not been received."""

    def fileno(self) -> int:
        """The connection's socket."""

    def close(self) -> None:
        """Close the connection."""


class Echo(Protocol):
    """Receives what it sends, on the same connection."""

    def open(self, dsn: str, channel: str) -> None:
        """Connect and listen to `channel`."""

    def echo(self, payload: str) -> str:
        """Notify the channel and return the payload of the notification that this brings."""

    def close(self) -> None:
        """Close the connection."""


class Publisher(Protocol):
    """Sends."""

    def open(self, dsn: str, channel: str) -> None:
        """Connect; what follows goes to `channel`."""

    def publish(self, payload: str, times: int) -> list[int]:
        """Notify the channel so many times, one after the other; return how many nanoseconds each call took."""

    def close(self) -> None:
        """Close the connection."""


class Entrant(Protocol):
    """Begins to listen to many channels."""

    def open(self, dsn: str) -> None:
        """Connect."""

    def enter(self, channels: list[str]) -> None:
        """Listen to each of them, for a consumer of its own; as many at once as it can. Return when it does."""

    def close(self) -> None:
        """Close the connection."""


class Counter(Protocol):
    """Counts what another process sends."""

    def open(self, dsn: str, channel: str) -> None:
        """Connect and listen to `channel`."""

    def count_lost(self, expected: int) -> int:
        """Wait for so many notifications and do nothing with them; return how many of them were missed."""

    def close(self) -> None:
        """Close the connection."""


@dataclass(frozen=True)
class Contestant(Generic[C]):
    """A class of receivers, or of another kind, by name."""

    name: str
    role: Role
    make: Callable[[], C]
    driver: str = "psycopg"
    """The module that it needs."""
    lacking: Callable[[], str | None] = lambda: None
    """Says what else it needs and is not there."""

    @property
    def missing(self) -> str | None:
        """Why it cannot take part, if it cannot."""
        try:
            import_module(self.driver)
        except ImportError as error:
            return str(error)
        return self.lacking()
