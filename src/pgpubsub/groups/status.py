"""What can be known of groups."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from pgpubsub.events import Entry, Undecodable

__all__ = ["DeadLetter", "GroupInfo", "GroupMember", "HeldUp"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A consumer that takes part in a group."""

    name: str
    """Its host and process id."""
    since: datetime
    slots: int
    """Its share of the 32."""
    in_hand: tuple[int, ...]
    """The ids of the entries that it handles, or is about to; the first 100. Later ones of their keys wait for them."""


@dataclass(frozen=True, slots=True)
class HeldUp:
    """An entry that failed, and waits to be handed out again."""

    id: int
    key: str | None
    behind: int
    """How many entries of its key wait for it."""
    attempts: int
    due_at: datetime
    error: str | None
    """Of the last attempt."""


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A group, as it stands."""

    name: str
    lag: int
    """Entries that are not settled: not handed out, in hand, or waiting to be handed out again."""
    lag_seconds: float
    """How long ago the oldest of them was appended; 0 when there is none."""
    members: tuple[GroupMember, ...]
    held_up: tuple[HeldUp, ...]
    """What waits to be handed out again, and what for; the 100 that are due first."""
    dead: int
    """How many were set aside."""


@dataclass(frozen=True, slots=True)
class DeadLetter(Generic[T]):
    """An entry that was set aside. It has a copy of its own, so that retention does not concern it."""

    entry: Entry[T] | Undecodable
    attempts: int
    error: str | None
    """Of the last attempt."""
    dead_at: datetime
