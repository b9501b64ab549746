"""A change of a table, as a trigger tells of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

__all__ = ["Change"]

R = TypeVar("R")


@dataclass(frozen=True)
class Change(Generic[R]):
    """What a trigger of `pgpubsub.triggers` sends. `Channel("orders", Change[Order])` decodes to a row type of yours,
    and `Change[dict[str, Any]]` to a dictionary.

    >>> from typing import Any
    >>> orders = pgpubsub.Channel("orders", pgpubsub.Change[dict[str, Any]])
    """

    op: Literal["insert", "update", "delete", "truncate"]
    """What was done."""
    schema: str
    """The table's schema."""
    table: str
    """The table."""
    key: dict[str, Any] | None
    """The primary key, by column. None where the table has none, and of a message for many rows."""
    row: R | None
    """The row as it is now: of inserts and updates."""
    old: R | None
    """The row as it was, if the trigger was asked for it: of updates and deletes."""
    changed: dict[str, Any] | None
    """Of updates: what has changed, with the new values, by column."""
    reduced: Literal["row", "changed", "key", "keys", "nothing"] | None
    """None: this is all. Otherwise it was too long for a notification, or something has failed, and this is what is
    left: `row` (without `old`), `changed` (what has changed, and the key), `key` (alone), `keys` (as many as there was
    room for), `nothing` (but that there was a change)."""
    xid: int | None
    """The transaction's id."""
    at: str
    """When that was, in ISO 8601."""
    old_key: dict[str, Any] | None = None
    """The primary key that the row had, where that has changed."""
    count: int | None = None
    """Of a message for a whole statement: how many rows."""
    keys: list[dict[str, Any]] | None = None
    """Of such a message: their primary keys, and those that they had."""
