"""Events to bytes, as the HTML standard has them ("Server-sent events"). No payload, channel or position can break out
of its line, and no channel's name makes a message look like another sort of event."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

from pgpubsub.events import Entry, Gap, Notify, Undecodable

__all__ = ["HEADERS", "KEEP_ALIVE", "MEDIA_TYPE", "as_text", "encode", "frame"]

MEDIA_TYPE = "text/event-stream"

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""What a response has to say beside its type: that nobody keeps it, and that nginx does not hold it back."""

KEEP_ALIVE = b":\n\n"
"""A comment, so that nobody between takes the connection for dead, and a server notices that its client is gone."""

RESERVED = frozenset({"gap", "undecodable", "error", "open"})
"""Types that say something of the connection, to a page or to `EventSource` itself. No channel's name is one."""

_LINE_BREAK = re.compile(r"\r\n|\r|\n")  # these are all that the standard knows; str.splitlines() knows more


def frame(
    data: str | None = None,
    *,
    event: str | None = None,
    id: str | None = None,
    retry: int | None = None,
    comment: str | None = None,
) -> bytes:
    r"""One server-sent event, of whichever fields are given.

    Args:
        data: any text. Each of its line breaks, of whatever kind, arrives as a line feed. Empty text is data, too.
        event: its type, which a browser's listeners are registered for.
        id: where to resume: what the browser sends as `Last-Event-ID` when it reconnects.
        retry: milliseconds after which a browser reconnects.
        comment: text that browsers ignore.

    Raises:
        ValueError: `event` or `id` has a line break in it, or `id` contains NUL.

    >>> frame("two\r\nlines", event="message", id="17")
    b'event: message\nid: 17\ndata: two\ndata: lines\n\n'
    """
    for name, value in (("event", event), ("id", id)):
        if value is not None and (_LINE_BREAK.search(value) or (name == "id" and "\0" in value)):
            raise ValueError(f"the {name} of a server-sent event is one line without NUL, not {value!r}")
    lines = [f": {line}" for line in _LINE_BREAK.split(comment)] if comment is not None else []
    fields = (("event", event), ("id", id), ("retry", retry))
    lines += [f"{name}: {value}" for name, value in fields if value is not None]
    if data is not None:
        lines += [f"data: {line}" for line in _LINE_BREAK.split(data)]
    return "\n".join([*lines, "", ""]).encode(errors="replace")


def as_text(payload: Any) -> str:
    """A payload as data, unless you say otherwise: text as it is, bytes in base64, all else as JSON.

    Raises:
        TypeError, ValueError: it cannot be JSON, as NaN and infinite numbers cannot.
    """
    if isinstance(payload, str):
        return payload
    if isinstance(payload, bytes):
        return base64.b64encode(payload).decode()
    return json.dumps(payload, ensure_ascii=False, allow_nan=False)


def encode(event: Any, *, text: Callable[[Any], str] = as_text, named: bool = False) -> bytes:
    r"""What a receiver has delivered, as a server-sent event.

    ============  ===========  ==========================================================================
    event         its type     its data
    ============  ===========  ==========================================================================
    Notify        message      the payload
    Entry         message      the payload; its id is the entry's position
    Gap           gap          JSON: reason, since and count; not its detail, the server's own words
    Undecodable   undecodable  JSON: an entry's id; not the payload, which nobody has checked
    ============  ===========  ==========================================================================

    Args:
        event: one of these.
        text: makes data of a payload.
        named: whether a browser is told the names of channels: the type of a notification is its channel, unless that
            is "gap", "undecodable", "error" or "open", for which it stays "message" (a line break becomes a space);
            gaps have `channels`, and what is undecodable has its `channel`.

    Raises:
        TypeError: `event` is none of these.
        Exception: whatever `text` raises.

    >>> encode(pgpubsub.Notify(9425, "orders", "17"))
    b'event: message\ndata: 17\n\n'
    >>> encode(pgpubsub.Notify(9425, "orders", {"id": 17}), named=True)
    b'event: orders\ndata: {"id": 17}\n\n'
    """
    if isinstance(event, Notify):
        return frame(text(event.payload), event=_type(event.channel) if named else "message")
    if isinstance(event, Entry):
        return frame(text(event.payload), event="message", id=event.position)
    if isinstance(event, Gap):
        return frame(_gap(event, named), event="gap")
    if isinstance(event, Undecodable):
        position = event.event.position if isinstance(event.event, Entry) else None
        return frame(_undecodable(event, named), event="undecodable", id=position)
    raise TypeError(f"a receiver delivers no {type(event).__name__}: {event!r}")


def _type(channel: str) -> str:
    return "message" if channel in RESERVED else _LINE_BREAK.sub(" ", channel)


def _gap(gap: Gap, named: bool) -> str:
    channels = {"channels": gap.channels} if named else {}
    return json.dumps(
        {"reason": gap.reason, **channels, "since": gap.since.isoformat(), "count": gap.count}, ensure_ascii=False
    )


def _undecodable(event: Undecodable, named: bool) -> str:
    it = event.event
    told = {"id": it.id} if isinstance(it, Entry) else {"channel": it.channel} if named else {}
    return json.dumps(told, ensure_ascii=False)
