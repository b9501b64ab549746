"""Sending in a transaction of the caller's: what `notify` sends on it goes out when it is committed, or never.

Nothing is begun, committed or rolled back here, and no connection is opened, kept or closed.
"""

from __future__ import annotations

from typing import Any, TypeVar, overload

from pgpubsub.channel import Channel, checked_message
from pgpubsub.core import sql
from pgpubsub.core.frames import MAX_PAYLOAD, pack
from pgpubsub.drivers.borrowed import Statement, run, run_async
from pgpubsub.drivers.interface import parameters
from pgpubsub.randomness import new_message_id

__all__ = ["notify", "notify_async"]

T = TypeVar("T")


@overload
def notify(conn: Any, channel: Channel[T], payload: T, *, max_payload: int = MAX_PAYLOAD) -> None: ...
@overload
def notify(conn: Any, channel: str, payload: str = "", *, max_payload: int = MAX_PAYLOAD) -> None: ...
def notify(conn: Any, channel: str | Channel[Any], payload: Any = "", *, max_payload: int = MAX_PAYLOAD) -> None:
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
    run(conn, _statement(channel, payload, max_payload), "use await pgpubsub.notify_async()")


@overload
async def notify_async(conn: Any, channel: Channel[T], payload: T, *, max_payload: int = MAX_PAYLOAD) -> None: ...
@overload
async def notify_async(conn: Any, channel: str, payload: str = "", *, max_payload: int = MAX_PAYLOAD) -> None: ...
async def notify_async(
    conn: Any, channel: str | Channel[Any], payload: Any = "", *, max_payload: int = MAX_PAYLOAD
) -> None:
    """Send a notification in the transaction that an asynchronous connection has open: `notify` for asyncio.

    Args:
        conn: a connection of asyncpg, also out of its pool, or psycopg 3's `AsyncConnection`; SQLAlchemy's
            `AsyncConnection`, `AsyncSession` or `async_scoped_session`.
        channel, payload, max_payload: as in `notify`, and so are the errors. A blocking connection is refused, since
            it would hold up the event loop.

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
    await run_async(conn, _statement(channel, payload, max_payload), "use pgpubsub.notify()")


def _statement(channel: str | Channel[Any], payload: Any, max_payload: int) -> Statement:
    sql.check_max_payload(max_payload)
    messages = pack([checked_message(channel, payload, max_payload)], new_message_id)
    return Statement(sql.notify if len(messages) == 1 else sql.notify_all, parameters(messages))
