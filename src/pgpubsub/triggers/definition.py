"""What a trigger is asked for, checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Required, TypedDict, Unpack, get_args

from pgpubsub.channel import Channel, name_of
from pgpubsub.core.entries import check_schema, check_stream
from pgpubsub.core.sql import quote_identifier, text_fault

__all__ = ["Event", "Level", "Options", "ToStream", "Trigger", "Wanted", "quote_table", "stream", "wanted"]

Event = Literal["insert", "update", "delete", "truncate"]
Level = Literal["row", "statement"]

LONGEST_NAME = 40
"""Bytes, so that names made from it have 63 at most."""


class ToStream(NamedTuple):
    """A stream that triggers append to."""

    name: str
    schema: str = "pgpubsub"
    """Where streams are installed."""


def stream(name: str, schema: str = "pgpubsub") -> ToStream:
    """Say that changes are to be appended to a stream.

    Args:
        name: of the stream.
        schema: where streams are installed.

    Raises:
        ValueError: a name is not possible.

    >>> import pgpubsub.triggers
    >>> pgpubsub.triggers.stream("orders")
    ToStream(name='orders', schema='pgpubsub')
    """
    check_stream(name)
    check_schema(schema)
    return ToStream(name, schema)


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger that is installed. See `install` for what its attributes mean."""

    table: tuple[str, str]
    """The schema's name, and its own."""
    name: str
    to: str | ToStream
    """A channel's name, or a stream."""
    on: tuple[Event, ...]
    columns: tuple[str, ...] | None
    key_only: bool
    old: bool
    when: str | None
    level: Level
    definer: bool
    failures: int
    """How often something went wrong within it, since it was installed first, or moved with its table, or given to
    another owner. The server's log has the warnings."""


class Options(TypedDict, total=False):
    """What `install` takes beside the connection and the table."""

    to: Required[Any]
    on: Iterable[Event]
    columns: Iterable[str] | None
    key_only: bool
    old: bool
    when: str | None
    level: Level
    name: str | None
    definer: bool


class Wanted(NamedTuple):
    """What is asked for, as SQL has it."""

    table: str
    """Text that PostgreSQL reads as a `regclass`."""
    settings: Mapping[str, Any]
    """As the database stores them."""

    @property
    def as_json(self) -> str:
        """The settings, as one text for each meaning."""
        return json.dumps(self.settings, sort_keys=True, ensure_ascii=False)


def wanted(table: tuple[str, str] | str, **options: Unpack[Options]) -> Wanted:
    """Check what `install` is asked for.

    Raises:
        TypeError, ValueError: it is not possible.
    """
    names = Options.__annotations__
    for name in options:
        if name not in names:
            raise TypeError(f"a trigger has no option {name!r}: it takes {', '.join(names)}")
    if "to" not in options:
        raise TypeError("a trigger tells changes to somebody: give it to=, a channel's name for example")
    return _wanted(table, **options)


def _wanted(
    table: tuple[str, str] | str,
    *,
    to: Any,
    on: Iterable[Event] = ("insert", "update", "delete"),
    columns: Iterable[str] | None = None,
    key_only: bool = False,
    old: bool = False,
    when: str | None = None,
    level: Level = "row",
    name: str | None = None,
    definer: bool = False,
) -> Wanted:
    events = _checked_events(on)
    if level not in get_args(Level):
        raise ValueError(f"level is 'row' or 'statement', not {level!r}")
    watched = None if columns is None else _checked_columns(columns)
    for option, value in (("key_only", key_only), ("old", old), ("definer", definer)):
        if not isinstance(value, bool):
            raise TypeError(f"{option} is True or False, not {value!r}")
    if key_only and old:
        raise ValueError("key_only sends nothing of the row, and old sends what it was: choose one of them")
    if when is not None:
        _check_text("when", when)
    target = _target(to)
    if level == "statement" and isinstance(target, str) and old:
        raise ValueError("a statement's message on a channel has a count and keys, and no old rows: leave old out")
    settings = {
        "name": check_trigger_name(name),
        "to": target if isinstance(target, str) else {"stream": target.name, "schema": target.schema},
        "on": events,
        "columns": watched,
        "key_only": key_only,
        "old": old,
        "when": when,
        "level": level,
        "definer": definer,
    }
    return Wanted(quote_table(table), settings)


def check_trigger_name(name: str | None) -> str:
    """The name of a trigger, which is "pgpubsub" unless it is given.

    Raises:
        TypeError, ValueError: it cannot be one.
    """
    if name is None:
        return "pgpubsub"
    _check_text("name", name)
    if len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"name has {len(name.encode())} bytes and the limit is {LONGEST_NAME}: {name!r}")
    return name


def quote_table(table: tuple[str, str] | str) -> str:
    """What PostgreSQL reads as a `regclass`.

    >>> print(quote_table(("Sales", 'a "b" c')))
    "Sales"."a ""b"" c"
    >>> quote_table("sales.orders")
    'sales.orders'
    """
    if isinstance(table, str):
        _check_text("table", table)
        return table
    if not isinstance(table, tuple) or len(table) != 2:
        raise TypeError(f"table is a (schema, name) pair, or text such as 'sales.orders', not {table!r}")
    for part in table:
        _check_text("table", part)
    return ".".join(map(quote_identifier, table))


def target_of(stored: str | Mapping[str, str]) -> str | ToStream:
    """Where a trigger sends to, from what the settings have of it."""
    return stored if isinstance(stored, str) else ToStream(stored["stream"], stored["schema"])


def _target(to: Any) -> str | ToStream:
    if isinstance(to, ToStream):
        return stream(*to)
    if isinstance(to, Channel | str):
        return name_of(to)
    description = getattr(to, "_description", None)
    if description is not None:  # a hub's stream
        return stream(description.name, description.schema)
    raise TypeError(
        "to is a channel's name, a Channel, a hub's stream or pgpubsub.triggers.stream(name), not"
        f" {type(to).__name__}: {to!r}"
    )


def _checked_events(on: Iterable[Event]) -> list[str]:
    events = [on] if isinstance(on, str) else list(on)
    known = get_args(Event)
    for event in events:
        if event not in known:
            raise ValueError(f"on has some of {', '.join(map(repr, known))}, not {event!r}")
    if not events:
        raise ValueError("on is empty: there would be nothing to tell of")
    return [event for event in known if event in events]


def _checked_columns(columns: Iterable[str]) -> list[str]:
    if isinstance(columns, str):
        raise TypeError(f"columns is several names, such as [{columns!r}], not a name")
    names = list(columns)
    for name in names:
        _check_text("columns", name)
    if not names:
        raise ValueError("columns is empty: to send the key alone, give key_only=True")
    return sorted(set(names))  # in whatever order they are given, it is the same trigger


def _check_text(what: str, text: Any) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{what} is text, not {text!r}")
    if not text:
        raise ValueError(f"{what} is empty")
    fault = text_fault(text)
    if fault is not None:
        raise ValueError(f"{what} {fault}, which PostgreSQL cannot store: {text!r}")
