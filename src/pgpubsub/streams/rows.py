"""What a row of `Statements.look` or `page` says, as an event."""

from __future__ import annotations

from typing import Any

from pgpubsub.core.headers import read_json
from pgpubsub.events import Entry, Places, Undecodable

__all__ = ["event", "size"]


def event(row: Any, places: Places) -> Entry[Any] | Undecodable:
    """The entry, which stands at one of `places`; undecodable if its headers are beyond Python's JSON."""
    id, key, text, data, headers, appended_at, xid, *_ = row
    payload = data if text is None else text
    if headers is None:
        return Entry(id, key, payload, None, appended_at, places, xid)
    try:
        return Entry(id, key, payload, read_json(headers), appended_at, places, xid)
    except ValueError as error:  # which PostgreSQL's JSON allows: long and large numbers, deep nesting
        return Undecodable(Entry(id, key, payload, None, appended_at, places, xid), error)


def size(row: Any) -> int:
    """About how many bytes it takes."""
    _, _, text, data, headers, *_ = row
    return len(text or data or "") + len(headers or "")
