"""What a span of handling is about: whatever a receiver has delivered, in the words of the conventions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pgpubsub.events import Entry, Notify, Undecodable
from pgpubsub.groups.handling import Delivered, DeliveredBatch

__all__ = ["Subject", "subject_of"]


class Subject(NamedTuple):
    """What is handled."""

    destination: str | None
    """The channel or stream, if it is known."""
    headers: Sequence[dict[str, Any] | None]
    """Of each message."""
    is_batch: bool
    attributes: dict[str, str | int]
    """Beside those that all have."""


def subject_of(event: Any, destination: str | None) -> Subject:
    """What `event` is.

    Raises:
        TypeError: no receiver delivers that.
    """
    if isinstance(event, DeliveredBatch):
        stored = [_stored(entry) for entry in event]
        attributes = {**_in_hand(event), "messaging.batch.message_count": len(stored)}
        return Subject(event.stream, [entry.headers for entry in stored], True, attributes)
    if isinstance(event, Delivered):
        its = subject_of(event.event, event.stream)
        return its._replace(attributes={**its.attributes, **_in_hand(event)})
    stored = _stored(event)
    attributes = {}
    if isinstance(stored, Entry):
        attributes["messaging.message.id"] = str(stored.id)
    elif isinstance(stored, Notify):
        destination = stored.channel
    else:
        raise TypeError(f"a receiver delivers no {type(event).__name__}: {event!r}")
    if (size := _size(stored.payload)) is not None:
        attributes["messaging.message.body.size"] = size
    return Subject(destination, [stored.headers], False, attributes)


def _stored(event: Any) -> Any:
    return event.event if isinstance(event, Undecodable) else event


def _in_hand(event: Delivered[Any] | DeliveredBatch[Any]) -> dict[str, str | int]:
    return {
        "messaging.consumer.group.name": event.group,
        "messaging.postgresql.message.delivery_attempt": event.attempt,
    }


def _size(payload: object) -> int | None:
    """Bytes of what has not been decoded."""
    if isinstance(payload, str):
        return len(payload) if payload.isascii() else len(payload.encode(errors="surrogateescape"))
    return len(payload) if isinstance(payload, bytes) else None
