"""What was handed out together, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

from pgpubsub.core.slots import Item
from pgpubsub.errors import LeaseLost, PubSubError
from pgpubsub.events import Entry, Undecodable

__all__ = ["Apart", "Claim", "Settling"]

T = TypeVar("T")


class Apart:
    """Where the entries of a group stand: the group knows, and nobody else needs to."""

    def __init__(self, stream: int) -> None:
        self.stream = stream

    def position(self, id: int, xid: int = 0, appended_at: object = None, /) -> Any:
        raise PubSubError("an entry that a group hands out has no position of its own: the group keeps its place")


class Settling(Protocol):
    """Somebody who waits until it is written down what became of a claim."""

    def tell(self, error: PubSubError | None) -> None:
        """It is, or it is not, and the entries come again."""


class Claim(Generic[T]):
    """Entries that one consumer has in hand, until they are settled."""

    def __init__(
        self,
        member: str,
        items: Sequence[Item],
        entries: Sequence[Entry[T] | Undecodable],
        *,
        stream: str,
        group: str,
    ) -> None:
        self.member = member
        """The id of the membership they belong to."""
        self.stream = stream
        self.group = group
        self.items = items
        self.entries = entries
        self.since = monotonic()
        """When it was handed out."""
        self.handed = 0
        """Changes when it is handed over, and when it is put back: whoever was to have it has not got it."""
        self.settled = False
        """Whether it was said what became of them."""
        self.in_doubt = False
        """Whether that was said in a transaction which may not have ended."""
        self.error = "the transaction that acknowledged it was rolled back"
        """What to say of it, if that turns out."""
        self.in_transaction = False
        """Whether it is being handled in a transaction of ours, at whose end it is acknowledged."""
        self.lost: LeaseLost | None = None
        """Set when the membership has ended."""

    def check(self) -> None:
        """Raise unless something may be said of it.

        Raises:
            LeaseLost: another member has it, or will.
            PubSubError: that was said before.
        """
        if self.lost is not None:
            raise LeaseLost(str(self.lost))
        if self.settled:
            raise PubSubError("it was acknowledged, or has failed, before")
        if self.in_transaction:
            raise PubSubError(
                "leaving the block of transaction() acknowledges it; to have it fail, raise an exception in there"
            )

    @contextmanager
    def within_transaction(self) -> Iterator[None]:
        """Nothing is said of it meanwhile, but at the end."""
        self.in_transaction = True
        try:
            yield
        finally:
            self.in_transaction = False

    @property
    def ids(self) -> list[int]:
        """Those of the entries."""
        return [item.id for item in self.items]
