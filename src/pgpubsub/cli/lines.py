"""Events as lines: of text, for people and simple tools, or of JSON, exact.

A line of text never has a control character that came from elsewhere: what cannot be printed is escaped, so that an
event is one line and a payload cannot command the terminal.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any

from rich.text import Text

from pgpubsub.events import Entry, Gap, Notify

__all__ = ["as_json", "as_text", "clock", "dumped", "explained", "moment", "payload_text", "printable"]


def printable(text: str) -> str:
    """`text` on one line, without anything that a terminal would obey.

    >>> printable("two\\nlines \\x1b[31m")
    'two\\\\nlines \\\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def clock(time: datetime) -> str:
    """A time of day, here, to the millisecond."""
    return time.astimezone().strftime("%H:%M:%S.%f")[:-3]


def moment(time: datetime) -> str:
    """A time, here, to the millisecond."""
    return time.astimezone().replace(tzinfo=None).isoformat(" ", "milliseconds")


def dumped(value: Any, *, ascii_only: bool) -> str:
    """A line of JSON."""
    return json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def as_json(event: Notify | Entry[Any] | Gap, at: datetime) -> dict[str, Any]:
    """An event, with "kind" saying which: "notify", "entry" or "gap"."""
    if isinstance(event, Gap):
        return {
            "kind": "gap",
            "at": at.isoformat(),
            "reason": event.reason,
            "channels": list(event.channels),
            "since": event.since.isoformat(),
            "count": event.count,
            "detail": event.detail,
        }
    if isinstance(event, Entry):
        return {
            "kind": "entry",
            "at": at.isoformat(),
            "id": event.id,
            "key": event.key,
            **_payload(event.payload),
            "headers": event.headers,
            "appended_at": event.appended_at.isoformat(),
        }
    return {
        "kind": "notify",
        "at": at.isoformat(),
        "channel": event.channel,
        "payload": event.payload,
        "headers": event.headers,
        "pid": event.pid,
    }


def as_text(event: Notify | Entry[Any] | Gap, at: datetime, width: int = 0) -> Text:
    """An event; `width` is for what stands before its payload, a channel or a key."""
    if isinstance(event, Gap):
        return Text.assemble((clock(at), "dim"), "  ", (f"GAP: {explained(event)}", "bold yellow"))
    if isinstance(event, Entry):
        key = "-" if event.key is None else printable(event.key)
        parts = (moment(event.appended_at), f"{event.id}", key, payload_text(event.payload))
    else:
        parts = (clock(at), "", printable(event.channel), printable(event.payload))
    time, number, name, payload = parts
    return Text.assemble(
        (time, "dim"), "  ", f"{number}  " if number else "", (name.ljust(width), "cyan"), "  ", payload
    )


def explained(gap: Gap) -> str:
    """What a gap means, on one line."""
    missing = "any number" if gap.count is None else f"{gap.count:,}"
    names = ", ".join(map(printable, gap.channels))
    return f"{missing} may be missing on {names} since {clock(gap.since)}: {gap.reason}, {printable(gap.detail)}"


def _payload(payload: str | bytes) -> dict[str, str]:
    if isinstance(payload, bytes):
        return {"payload_base64": base64.b64encode(payload).decode()}
    return {"payload": payload}


def payload_text(payload: str | bytes) -> str:
    """On one line; bytes as PostgreSQL shows them."""
    return f"\\x{payload.hex()}" if isinstance(payload, bytes) else printable(payload)
