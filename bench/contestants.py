"""What takes part: anything that can `open`, take notifications, and `close`.

To add a contestant, write such a class and name it in one of the lists `SUBSCRIBERS`, `RAW_LOOPS`, `ECHOES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Generic, NamedTuple, Protocol, TypeVar

__all__ = ["Arrival", "Contestant", "Echo", "Receiver", "Role"]

C = TypeVar("C", covariant=True)


class Role(StrEnum):
    """What a contestant's figures are for."""

    SUBJECT = "subject"
    """pgpubsub, which has aims to meet."""

    PEER = "peer"
    """What it is compared with: a loop as the driver's manual has it."""

    EXTRA = "extra"
    """For information: it neither has aims nor sets them."""


class Arrival(NamedTuple):
    """The last of the notifications that were asked for."""

    pid: int
    channel: str
    payload: str
    at: int
    """`time.monotonic_ns()` when the consumer had it in its hands. The clock is the same in all processes."""


class Receiver(Protocol):
    """Receives what another process sends."""

    def open(self, dsn: str, channel: str) -> None:
        """Connect and listen to `channel`."""

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


@dataclass(frozen=True)
class Contestant(Generic[C]):
    """A class of receivers or of echoes, by name."""

    name: str
    role: Role
    make: Callable[[], C]
    driver: str = "psycopg"
    """The module that it needs."""

    @property
    def missing(self) -> str | None:
        """Why it cannot take part, if it cannot."""
        try:
            import_module(self.driver)
        except ImportError as error:
            return str(error)
        return None
