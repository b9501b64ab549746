"""What a row of `Statements.look` or `page` says, as an event."""

from __future__ import annotations

import json
from typing import Any

from pgpubsub.events import Entry, Places, Undecodable

__all__ = ["event"]


def event(row: Any, places: Places) -> Entry[Any] | Undecodable:
    """The entry, which stands at one of `places`; undecodable if its headers are beyond Python's JSON."""
    id, key, text, data, headers, appended_at, xid, *_ = row
    payload = data if text is None else text
    if headers is None:
        return Entry(id, key, payload, None, appended_at, places, xid)
    try:
        return Entry(id, key, payload, json.loads(headers), appended_at, places, xid)
    except (ValueError, RecursionError) as error:  # which PostgreSQL's JSON allows: long numbers, deep nesting
        return Undecodable(Entry(id, key, payload, None, appended_at, places, xid), error)
