"""What a delivery says of itself, whether tasks or threads handle it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from pgpubsub.core.sql import quote_identifier
from pgpubsub.drivers.borrowed import Statement
from pgpubsub.errors import Closed, LeaseLost, PubSubError
from pgpubsub.events import Entry, Undecodable
from pgpubsub.groups.claims import Claim
from pgpubsub.logs import EventLog

__all__ = ["Delivered", "DeliveredBatch", "InHand", "acknowledgement", "explained", "is_loss", "log_loss", "noted_in"]

T = TypeVar("T")

logger = EventLog("groups")

LONGEST = 2000
"""Characters of an error that are stored with an entry."""


class Consuming(Protocol):
    """A consumer, which is told."""

    def _abandon(self, claim: Claim[Any]) -> None:
        """Whoever had `claim` has dropped it. For destructors, which run in any thread."""


class InHand:
    """What a consumer has in hand. Whoever drops it without a word has failed."""

    def __init__(self, consumer: Consuming, claim: Claim[Any]) -> None:
        self._consumer: Any = consumer
        self._claim = claim
        self._handed = claim.handed

    @property
    def stream(self) -> str:
        """The name of the stream."""
        name: str = self._consumer._description.name
        return name

    @property
    def group(self) -> str:
        """The name of the group."""
        name: str = self._consumer._settings.group
        return name

    @property
    def attempt(self) -> int:
        """How often it was handed out, this time included: 1 for the first time. Of a batch, its first entry."""
        return self._claim.items[0].attempts

    def __del__(self) -> None:
        if not self._claim.settled and self._claim.handed == self._handed:
            self._consumer._abandon(self._claim)


class Delivered(InHand, Generic[T]):
    """An entry that a consumer has in hand."""

    def __init__(self, consumer: Consuming, claim: Claim[Any], entry: Entry[T] | Undecodable) -> None:
        super().__init__(consumer, claim)
        self.event = entry
        """The entry, or the `Undecodable` that it is."""

    @property
    def entry(self) -> Entry[T]:
        """The entry. One that cannot be decoded raises the codec's error."""
        if isinstance(self.event, Undecodable):
            return self.event.payload
        return self.event

    @property
    def _stored(self) -> Entry[Any]:
        stored = self.event.event if isinstance(self.event, Undecodable) else self.event
        assert isinstance(stored, Entry)
        return stored

    @property
    def id(self) -> int:
        """The entry's."""
        return self._stored.id

    @property
    def key(self) -> str | None:
        """The entry's."""
        return self._stored.key

    @property
    def headers(self) -> dict[str, Any] | None:
        """The entry's."""
        return self._stored.headers

    @property
    def appended_at(self) -> datetime:
        """The entry's."""
        return self._stored.appended_at

    @property
    def payload(self) -> T:
        """The entry's. One that cannot be decoded raises the codec's error."""
        return self.entry.payload

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._stored!r}, attempt {self.attempt}>"


class DeliveredBatch(InHand, Generic[T]):
    """Entries that a consumer has in hand together. It is iterated, and has a length."""

    def __init__(self, consumer: Consuming, claim: Claim[Any], entries: list[Entry[T] | Undecodable]) -> None:
        super().__init__(consumer, claim)
        self.entries = entries
        """The entries, in order. Any of them may be `Undecodable`, which raises where its payload is used."""

    def __iter__(self) -> Iterator[Entry[T] | Undecodable]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} entries>"


def explained(claim: Claim[Any], error: BaseException) -> str:
    """What is stored of an error, and logged."""
    # The root of the errors is what a text was made into, see `fail`.
    words = str(error) if type(error) is PubSubError else "".join(traceback.format_exception_only(error)).strip()
    logger.warning(
        "handling_failed",
        "%(what)s failed, attempt %(attempt)d: %(error)s",
        exc_info=error,
        what=_named(claim),
        stream=claim.stream,
        group=claim.group,
        entries=claim.ids,
        attempt=claim.items[0].attempts,
        error=words,
    )
    return words.encode("utf-8", "replace").decode().replace("\0", "")[:LONGEST]


@contextmanager
def log_loss(claim: Claim[Any]) -> Iterator[None]:
    """Log it if `claim` is somebody else's by now: it will be handled, and whoever handled it here goes on."""
    try:
        yield
    except (LeaseLost, Closed) as error:
        is_loss(claim, error)


def is_loss(claim: Claim[Any], error: BaseException) -> bool:
    """Whether `error` says that `claim` is somebody else's. If so, it is logged."""
    if not isinstance(error, LeaseLost | Closed):
        return False
    logger.warning(
        "outcome_lost",
        "what became of %(what)s was not written down, and it comes again: %(error)s",
        what=_named(claim),
        stream=claim.stream,
        group=claim.group,
        entries=claim.ids,
        error=error,
    )
    return True


def _named(claim: Claim[Any]) -> str:
    return f"entry {claim.ids[0]}" if len(claim.ids) == 1 else f"a batch of {len(claim.ids)} entries"


def acknowledgement(schema: str, claim: Claim[Any], *, bounded: bool = False) -> Statement:
    """What acknowledges `claim` in the transaction in which it is run. `bounded`: which may not idle then."""
    claim.check()
    function = f"{quote_identifier(schema)}.acknowledge"
    ids = "{" + ",".join(map(str, claim.ids)) + "}"

    def text(member: str, ids: str) -> str:
        arguments = f"CAST(CAST({member} AS text) AS uuid), CAST(CAST({ids} AS text) AS bigint[])"
        return f"SELECT {function}({arguments}, {bounded})"

    return Statement(text, (claim.member, ids))


def noted_in(answer: str) -> tuple[int, int]:
    """What that returns: the number of the acknowledgement, and the transaction's id."""
    noted, xid = answer.split()
    return int(noted), int(xid)
