"""What a stream is like, and trimming it: on a connection of the user's, in the transaction that is open."""

from __future__ import annotations

import json
from collections.abc import Generator
from datetime import timedelta
from enum import Enum
from typing import Any, Final, Literal, get_args

from pgpubsub.core.entries import check_schema, check_stream
from pgpubsub.core.position import stream_id
from pgpubsub.core.sql import quote_identifier
from pgpubsub.core.timeouts import check_seconds
from pgpubsub.drivers.borrowed import Statement, run, run_async

__all__ = ["UNCHANGED", "Unchanged", "Wake", "create", "create_async", "trim", "trim_async"]

Wake = Literal["notify", "poll"]

BATCH = 1000
"""Entries that are removed at a time."""

LONGEST = 100 * 366 * 86400
"""Seconds that an age may be. PostgreSQL has no times before 4713 BC."""

MOST = 10**15
"""Entries that may be asked for."""


class Unchanged(Enum):
    """What an argument is that was left out."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return self.name


UNCHANGED: Final = Unchanged.UNCHANGED


def create(
    conn: Any,
    name: str,
    *,
    wake: Wake | Unchanged = UNCHANGED,
    max_age: timedelta | float | Unchanged | None = UNCHANGED,
    max_entries: int | Unchanged | None = UNCHANGED,
    keep_unconsumed: bool | Unchanged = UNCHANGED,
    schema: str = "pgpubsub",
) -> None:
    """Make a stream, or change its settings. One that is appended to comes into being by itself, with the defaults.

    What is left out stays as it is; in a new stream it is the default.

    Args:
        conn: as for `install`.
        name: text of up to 1,000 bytes.
        wake: what an append within a transaction of yours does. `notify`, the default: readers are woken within
            milliseconds, but the transaction takes PostgreSQL's lock for NOTIFY and cannot be prepared (PREPARE
            TRANSACTION). `poll`: no lock, and readers find the entry when they look next, within their
            `poll_interval`. Appends by a hub wake readers in any case, and take no such lock.
        max_age: how long entries are kept at least, a timedelta or seconds, up to a hundred years. None, the default:
            for ever.
        max_entries: how many entries are kept, the newest. With 10,000 or more it may be a tenth more than that. None,
            the default: all.
        keep_unconsumed: whether an entry is kept until every group of the stream has handled it, or has set it aside.
            By default it is not. Readers without a group do not count.
        schema: where streams are installed.

    Entries that need not be kept are removed in the background by hubs that use streams, or by `trim`.

    Raises:
        ValueError: the name, or a setting, is not possible.
        TypeError: a setting is of another type.
        UnsupportedConnection: `conn` is something else.

    >>> import psycopg, pgpubsub.streams
    >>> from datetime import timedelta
    >>> with psycopg.connect(dsn) as conn:
    ...     pgpubsub.streams.install(conn)
    ...     pgpubsub.streams.create(conn, "audit", wake="poll", max_age=timedelta(days=30))
    ...     pgpubsub.streams.create(conn, "audit", max_age=None, max_entries=1_000_000)  # and `wake` as it was
    """
    statement = _creation(name, schema, wake, max_age, max_entries, keep_unconsumed)
    run(conn, statement, "use await pgpubsub.streams.create_async()")


async def create_async(
    conn: Any,
    name: str,
    *,
    wake: Wake | Unchanged = UNCHANGED,
    max_age: timedelta | float | Unchanged | None = UNCHANGED,
    max_entries: int | Unchanged | None = UNCHANGED,
    keep_unconsumed: bool | Unchanged = UNCHANGED,
    schema: str = "pgpubsub",
) -> None:
    """`create` on an asynchronous connection."""
    statement = _creation(name, schema, wake, max_age, max_entries, keep_unconsumed)
    await run_async(conn, statement, "use pgpubsub.streams.create()")


def trim(conn: Any, name: str | None = None, *, schema: str = "pgpubsub") -> int:
    """Remove all entries that need not be kept, and return how many those were.

    It goes in batches of 1,000. In autocommit mode each is a transaction of its own; otherwise all are part of the one
    that is open. Nobody waits for it, nor does it wait for anybody: a stream that somebody else is trimming is left to
    them. What was appended since the oldest transaction began that is still open (and has written something) stays for
    another time.

    Args:
        conn: as for `install`; a role that may delete entries (see docs/streams.md).
        name: of a stream. None: all.
        schema: where streams are installed.

    Raises:
        ValueError: the name is not possible.
        UnsupportedConnection: `conn` is something else.

    >>> import psycopg, pgpubsub.streams
    >>> with psycopg.connect(dsn, autocommit=True) as conn:
    ...     pgpubsub.streams.install(conn)
    ...     pgpubsub.streams.create(conn, "readings", max_entries=2)
    ...     for number in range(5):
    ...         _ = pgpubsub.append(conn, "readings", str(number))
    ...     pgpubsub.streams.trim(conn, "readings")
    3
    """
    trimming = _trimming(name, schema)
    statement = next(trimming)
    try:
        while True:
            statement = trimming.send(run(conn, statement, "use await pgpubsub.streams.trim_async()"))
    except StopIteration as end:
        return int(end.value)


async def trim_async(conn: Any, name: str | None = None, *, schema: str = "pgpubsub") -> int:
    """`trim` on an asynchronous connection."""
    trimming = _trimming(name, schema)
    statement = next(trimming)
    while True:
        answer = await run_async(conn, statement, "use pgpubsub.streams.trim()")
        try:
            statement = trimming.send(answer)
        except StopIteration as end:
            return int(end.value)


def _trimming(name: str | None, schema: str) -> Generator[Statement, Any, int]:
    """Statements to run; it is sent what each returns, and returns how many entries were removed."""
    check_schema(schema)
    quoted = quote_identifier(schema)
    if name is None:
        found = yield Statement(lambda space: f"SELECT {quoted}.retained(CAST({space} AS text))", (" ",))
        streams = (found or "").split()
    else:
        check_stream(name)
        streams = [str(stream_id(name))]
    total = 0
    for stream in streams:
        count: int | None = None
        while count != 0:
            count = yield Statement(
                lambda stream: f"SELECT {quoted}.trim(CAST(CAST({stream} AS text) AS bigint), {BATCH})", (stream,)
            )
            total += count or 0
    return total


def _creation(
    name: str,
    schema: str,
    wake: Wake | Unchanged,
    max_age: timedelta | float | Unchanged | None,
    max_entries: int | Unchanged | None,
    keep_unconsumed: bool | Unchanged,
) -> Statement:
    check_stream(name)
    check_schema(schema)
    settings: dict[str, object] = {}
    if wake is not UNCHANGED:
        if wake not in get_args(Wake):
            raise ValueError(f"wake is 'notify' or 'poll', not {wake!r}")
        settings["wake"] = wake
    if max_age is not UNCHANGED:
        settings["max_age"] = _seconds(max_age)
    if max_entries is not UNCHANGED:
        _check_count(max_entries)
        settings["max_entries"] = max_entries
    if keep_unconsumed is not UNCHANGED:
        if not isinstance(keep_unconsumed, bool):
            raise TypeError(f"keep_unconsumed is True or False, not {keep_unconsumed!r}")
        settings["keep_unconsumed"] = keep_unconsumed
    function = f"{quote_identifier(schema)}.create_stream"
    return Statement(
        lambda name, settings: f"SELECT {function}(CAST({name} AS text), CAST(CAST({settings} AS text) AS jsonb))",
        (name, json.dumps(settings)),
    )


def _seconds(max_age: timedelta | float | None) -> float | None:
    if max_age is None:
        return None
    seconds = max_age.total_seconds() if isinstance(max_age, timedelta) else max_age
    check_seconds("max_age", seconds)
    if not 1e-6 <= seconds <= LONGEST:
        raise ValueError(f"max_age is up to a hundred years, and at least a microsecond, not {max_age!r}")
    return seconds


def _check_count(max_entries: int | None) -> None:
    if max_entries is None:
        return
    if not isinstance(max_entries, int) or isinstance(max_entries, bool):
        raise TypeError(f"max_entries is a number of entries, not {max_entries!r}")
    if not 1 <= max_entries <= MOST:
        raise ValueError(f"max_entries is a positive number up to 10^15, not {max_entries!r}")
