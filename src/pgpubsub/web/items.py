"""What has come on a channel or a stream, as clients get it. It is encoded once, for however many clients.

There are three forms: a server-sent event whose data is the payload, where a response is of one channel or stream; one
whose data is a JSON object, where it is of several; and that object alone, for WebSockets.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Literal, NamedTuple

from pgpubsub.contrib.sse import as_text, frame
from pgpubsub.core.buffer import payload_bytes
from pgpubsub.events import Entry, Gap, Notify

__all__ = ["Form", "Item", "Topic", "compact"]

Form = Literal["plain", "event", "json"]
"""See the module; the first two are server-sent events."""

OVERHEAD = 200
"""Bytes that an event has beside its payload, about."""


class Topic(NamedTuple):
    """A channel or a stream."""

    kind: Literal["channel", "stream"]
    name: str

    @property
    def path(self) -> str:
        """As URLs and patterns name it.

        >>> Topic("channel", "orders").path
        'channels/orders'
        """
        return f"{self.kind}s/{self.name}"


class Item:
    """One event of a channel or stream.

    Args:
        topic: where it came.
        event: as a subscription, or a reader, has delivered it.
        number: which it is of all that have come here; in this order a client gets those of several channels.
        milliseconds: when it came here, since 1970.
    """

    __slots__ = ("_forms", "event", "number", "place", "size", "topic")

    def __init__(self, topic: Topic, event: Notify | Entry[Any] | Gap, number: int, milliseconds: int) -> None:
        self.topic = topic
        self.event = event
        self.number = number
        self.size = OVERHEAD + _size(event)
        """In memory, about."""
        self.place = _place(topic, event, milliseconds)
        """Where a client goes on that has got this: in a stream the position, in a channel the time. A stream's gap has
        none."""
        self._forms: dict[Form, bytes] = {}

    def encoded(self, form: Form) -> bytes:
        """It in one of the forms. An `event` has no id, as a client's is about all that it reads."""
        encoded = self._forms.get(form)
        if encoded is None:
            encoded = self._forms[form] = self._encode(form)
        return encoded

    def _encode(self, form: Form) -> bytes:
        event = self.event
        kind = "gap" if isinstance(event, Gap) else "message"
        if form == "plain":
            return frame(
                compact(_gap(event)) if isinstance(event, Gap) else as_text(event.payload), event=kind, id=self.place
            )
        told = {"type": kind, self.topic.kind: self.topic.name, **_told(event)}
        try:
            text = compact(told)
        except RecursionError:  # headers so deep that there was room to read them, and is none to write them
            text = compact({**told, "headers": None})
        return text.encode(errors="replace") if form == "json" else frame(text, event=kind)


def compact(told: Any) -> str:
    """JSON, as short as it can be."""
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def _place(topic: Topic, event: Notify | Entry[Any] | Gap, milliseconds: int) -> str | None:
    if isinstance(event, Entry):
        return event.position
    return f"t{milliseconds}" if topic.kind == "channel" else None


def _size(event: Notify | Entry[Any] | Gap) -> int:
    if isinstance(event, Gap):
        return 0
    return payload_bytes([event]) if isinstance(event, Notify) else len(event.payload)


def _told(event: Notify | Entry[Any] | Gap) -> dict[str, Any]:
    if isinstance(event, Gap):
        return _gap(event)
    if isinstance(event, Notify):
        return (
            {"payload": event.payload}
            if event.headers is None
            else {"payload": event.payload, "headers": event.headers}
        )
    payload = event.payload
    is_text = isinstance(payload, str)
    return {
        **({"payload": payload} if is_text else {"base64": base64.b64encode(payload).decode()}),
        "id": event.id,
        "position": event.position,
        "key": event.key,
        "headers": event.headers,
        "at": event.appended_at.isoformat(),
    }


def _gap(gap: Gap) -> dict[str, Any]:
    """Not its detail, which may be the server's own words, and not the channels of others."""
    return {"reason": gap.reason, "since": gap.since.isoformat(), "count": gap.count}
