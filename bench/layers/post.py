"""What is sent, and what the processes tell about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import Any, NamedTuple

__all__ = ["GROUP", "PATIENCE", "Arrival", "Order", "Received", "Sent", "distinct", "message"]

GROUP = "bench"

PATIENCE = 5.0
"""Seconds without anything after which what has not come is taken to be lost."""

TEXT = "x" * 100


@dataclass(frozen=True)
class Order:
    """What the sender is to do."""

    turn: int
    """By this number those that were sent before are told from these."""
    seconds: float
    """For how long."""
    channel: str | None = None
    """To whom; none for the group."""
    tasks: int = 1
    """So many, each of which sends one message after the other."""
    rate: int | None = None
    """So many per second in place of that, whatever becomes of those before."""


@dataclass
class Sent:
    """What the sender has done."""

    began: int
    """By `time.monotonic_ns`."""
    tried: int = 0
    """Messages."""
    count: int = 0
    """Those that the channel layer took."""
    errors: list[str] = field(default_factory=list)


class Arrival(NamedTuple):
    """One message, for one channel."""

    place: int
    """Of the channel among those of its process."""
    number: int
    sent: int
    at: int


class Received(NamedTuple):
    """What one process has received."""

    arrivals: list[Arrival]
    errors: list[str]


def message(turn: int, number: int) -> dict[str, Any]:
    """One as consumers send them."""
    return {"type": "bench.message", "turn": turn, "number": number, "text": TEXT, "sent": monotonic_ns()}


def distinct(arrivals: Sequence[Arrival]) -> list[Arrival]:
    """The first of each, in the order of their numbers.

    >>> [arrival.at for arrival in distinct([Arrival(0, 1, 5, 6), Arrival(0, 0, 5, 7), Arrival(0, 1, 5, 8)])]
    [7, 6]
    """
    first: dict[tuple[int, int], Arrival] = {}
    for arrival in arrivals:
        first.setdefault((arrival.number, arrival.place), arrival)
    return [first[one] for one in sorted(first)]
