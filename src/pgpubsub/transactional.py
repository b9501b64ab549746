"""Sending and appending in a transaction of the caller's: what it sends goes out when it is committed, or never.

Nothing is begun, committed or rolled back here, and no connection is opened, kept or closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, overload

from pgpubsub.channel import Channel, checked_message
from pgpubsub.core import sql
from pgpubsub.core.entries import check_schema, new_entry
from pgpubsub.core.frames import MAX_PAYLOAD, pack
from pgpubsub.core.headers import Headers
from pgpubsub.drivers.borrowed import Statement, run, run_async
from pgpubsub.drivers.interface import parameters
from pgpubsub.randomness import new_message_id
from pgpubsub.streams.installation import how_to_install, missing_schema

__all__ = ["append", "append_async", "notify", "notify_async"]

T = TypeVar("T")


@overload
def notify(
    conn: Any, channel: Channel[T], payload: T, *, headers: Headers | None = None, max_payload: int = MAX_PAYLOAD
) -> None: ...
@overload
def notify(
    conn: Any, channel: str, payload: str = "", *, headers: Headers | None = None, max_payload: int = MAX_PAYLOAD
) -> None: ...
def notify(
    conn: Any,
    channel: str | Channel[Any],
    payload: Any = "",
    *,
    headers: Headers | None = None,
    max_payload: int = MAX_PAYLOAD,
) -> None:
    """Send a notification in the transaction that `conn` has open.

    Committed, it is delivered; rolled back, or back to a savepoint before it, it is not. In autocommit mode it is sent
    at once. Where the driver begins a transaction with the first statement, it does so with this one too, and you
    commit it. Equal notifications (channel and payload) of one transaction are delivered once, unless they are longer
    than 7,999 bytes.

    It costs one statement, and a lock while the transaction commits: in the whole cluster one transaction at a time
    commits with a notification, and the next waits until that one is flushed to disk. docs/sending.md has figures, and
    what to do instead where that is too slow.

    Args:
        conn: a connection of psycopg 3, psycopg2 or PyGreSQL (`pg` or `pgdb`); SQLAlchemy's `Connection`, `Session` or
            `scoped_session`; Django's `connection` or `connections[...]`.
        channel: any text of up to 63 bytes, or a `Channel`, which says what its payloads are.
        payload: any text without NUL, or what the `Channel` carries. Longer than 7,999 bytes, it travels in several
            notifications, which pgpubsub puts together again where it receives.
        headers: beside the payload: names and JSON values, of up to 16 KiB. They make a frame of the notification: who
            listens with pgpubsub finds them in `Notify.headers`, others see the frame's text.
        max_payload: bytes that it has in UTF-8, at most; 16 MiB by default.

    Raises:
        ChannelNameError: the name is empty, too long or contains NUL. This and the next four before anything is sent.
        PayloadError: the payload contains NUL or a lone surrogate, or is not what the `Channel` carries.
        PayloadTooLarge: it is longer than `max_payload`; a `PayloadError`.
        TypeError: `channel` is neither a name nor a `Channel`, or the payload on a plain channel is no text.
        UnsupportedConnection: `conn` is something else, or asynchronous; the message says what to do. A `TypeError`.
        Exception: what the driver or framework raises, unchanged, such as `UnicodeEncodeError` where the connection's
            encoding is not UTF-8 and has no bytes for the text.

    >>> import psycopg
    >>> with pgpubsub.connect(dsn) as pubsub, psycopg.connect(dsn) as conn:
    ...     pubsub.listen("orders")
    ...     with conn.transaction():
    ...         pgpubsub.notify(conn, "orders", "17")
    ...         before = pubsub.get_event()
    ...     print(before, pubsub.get_event(5).payload)
    None 17
    """
    run(conn, _statement(channel, payload, headers, max_payload), "use await pgpubsub.notify_async()")


@overload
async def notify_async(
    conn: Any, channel: Channel[T], payload: T, *, headers: Headers | None = None, max_payload: int = MAX_PAYLOAD
) -> None: ...
@overload
async def notify_async(
    conn: Any, channel: str, payload: str = "", *, headers: Headers | None = None, max_payload: int = MAX_PAYLOAD
) -> None: ...
async def notify_async(
    conn: Any,
    channel: str | Channel[Any],
    payload: Any = "",
    *,
    headers: Headers | None = None,
    max_payload: int = MAX_PAYLOAD,
) -> None:
    """Send a notification in the transaction that an asynchronous connection has open: `notify` for asyncio.

    Args:
        conn: a connection of asyncpg, also out of its pool, or psycopg 3's `AsyncConnection`; SQLAlchemy's
            `AsyncConnection`, `AsyncSession` or `async_scoped_session`.
        channel, payload, headers, max_payload: as in `notify`, and so are the errors. A blocking connection is
            refused, since it would hold up the event loop.

    >>> import asyncio, psycopg
    >>> async def order(number):
    ...     async with await psycopg.AsyncConnection.connect(dsn) as conn:  # one transaction
    ...         await pgpubsub.notify_async(conn, "orders", number)
    >>> with pgpubsub.connect(dsn) as pubsub:
    ...     pubsub.listen("orders")
    ...     asyncio.run(order("17"))
    ...     print(pubsub.get_event(5).payload)
    17
    """
    await run_async(conn, _statement(channel, payload, headers, max_payload), "use pgpubsub.notify()")


def _statement(channel: str | Channel[Any], payload: Any, headers: Headers | None, max_payload: int) -> Statement:
    sql.check_max_payload(max_payload)
    messages = pack([checked_message(channel, payload, max_payload, headers)], new_message_id)
    return Statement(sql.notify if len(messages) == 1 else sql.notify_all, parameters(messages))


def append(
    conn: Any,
    stream: str,
    value: str | bytes,
    key: str | None = None,
    headers: Headers | None = None,
    *,
    idempotency_key: str | None = None,
    schema: str = "pgpubsub",
    max_payload: int = MAX_PAYLOAD,
) -> int:
    """Append an entry to a stream in the transaction that `conn` has open, and return its id.

    Committed, it is there for all readers; rolled back, or back to a savepoint before it, it never was. In autocommit
    mode it is committed at once. Where the driver begins a transaction with the first statement, it does so with this
    one too, and you commit it.

    It costs one statement, and if the stream's `wake` is "notify", as it is by default, the lock that a notification
    costs: docs/streams.md has figures for both, and `pgpubsub.streams.create` changes that.

    Args:
        conn: as for `notify`.
        stream: the name, any text of up to 1,000 bytes. The stream comes into being with its first entry.
        value: text without NUL, or bytes. (What a typed stream carries is JSON: `Channel(...).encode(value)` has it.)
        key: what it is about: entries with the same key belong together.
        headers: beside the payload; names and JSON values.
        idempotency_key: an entry of this stream with the same one is not stored again: its id is returned. It waits for
            another transaction that is about to store one.
        schema: where streams are installed.
        max_payload: bytes that the payload has, at most; 16 MiB by default.

    Raises:
        PayloadError: text contains NUL or a lone surrogate, or the headers are no JSON.
        PayloadTooLarge: it is longer than `max_payload`; a `PayloadError`.
        TypeError: something is of another type. ValueError: the name is not possible.
        UnsupportedConnection: `conn` is something else, or asynchronous; the message says what to do. A `TypeError`.
        Exception: what the driver or framework raises, unchanged, such as psycopg's `InvalidSchemaName` where streams
            are not installed. There it has a note that says what to do.

    >>> import psycopg
    >>> with psycopg.connect(dsn) as conn, pgpubsub.Hub(dsn) as hub:
    ...     with hub.stream("orders").read(after=pgpubsub.END) as entries:
    ...         with conn.transaction():
    ...             id = pgpubsub.append(conn, "orders", "17", headers={"by": "shop"})
    ...             before = entries.get_nowait()
    ...         after = entries.get(timeout=5)
    >>> before, after.id == id, after.payload, after.headers
    (None, True, '17', {'by': 'shop'})
    """
    statement = _insertion(stream, value, key, headers, idempotency_key, schema, max_payload)
    with _advising(schema):
        id: int = run(conn, statement, "use await pgpubsub.append_async()")
    return id


async def append_async(
    conn: Any,
    stream: str,
    value: str | bytes,
    key: str | None = None,
    headers: Headers | None = None,
    *,
    idempotency_key: str | None = None,
    schema: str = "pgpubsub",
    max_payload: int = MAX_PAYLOAD,
) -> int:
    """Append an entry in the transaction that an asynchronous connection has open: `append` for asyncio.

    Args:
        conn: as for `notify_async`.
        stream, value, key, headers, idempotency_key, schema, max_payload: as in `append`, and so are the errors.
    """
    statement = _insertion(stream, value, key, headers, idempotency_key, schema, max_payload)
    with _advising(schema):
        id: int = await run_async(conn, statement, "use pgpubsub.append()")
    return id


@contextmanager
def _advising(schema: str) -> Iterator[None]:
    """Errors stay what the driver or framework makes of them, with a note on what to do where streams are missing."""
    try:
        yield
    except Exception as error:
        for cause in (error, getattr(error, "orig", None), error.__cause__):  # SQLAlchemy and Django wrap the driver's
            if missing_schema(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)):
                error.add_note(how_to_install(schema))
                break
        raise


def _insertion(
    stream: str,
    value: str | bytes,
    key: str | None,
    headers: Headers | None,
    idempotency_key: str | None,
    schema: str,
    max_payload: int,
) -> Statement:
    sql.check_max_payload(max_payload)
    check_schema(schema)
    entry = new_entry(stream, value, max_payload, key=key, headers=headers, idempotency_key=idempotency_key)
    payload = entry.text if entry.data is None else entry.data.hex()
    make = partial(sql.append, schema, in_hex=entry.data is not None)
    return Statement(make, (stream, payload, key, entry.headers, idempotency_key))
