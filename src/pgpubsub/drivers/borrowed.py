"""Sending on a connection that is the caller's, inside whatever transaction that has open.

One statement is run with the driver's own means, and nothing else is done to the connection. What the driver raises is
left as it is: frameworks decide by their own errors what is to be done with a transaction.

`BLOCKING` and `ASYNCHRONOUS` say whose connections are known, by the module and the name under which each publishes
the class. No such module is imported here before its owner did: whoever brings a connection has imported it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg.rows import tuple_row

from pgpubsub.core import sql
from pgpubsub.core.frames import Message
from pgpubsub.drivers.interface import parameters
from pgpubsub.errors import UnsupportedConnection

__all__ = ["send", "send_async"]

Way = TypeVar("Way")


class Statement(NamedTuple):
    """One that sends."""

    make: Callable[..., str]
    """Makes its text, given a placeholder for each parameter."""
    parameters: tuple[str, ...]

    def text(self, placeholders: Sequence[str]) -> str:
        """With the first of `placeholders`."""
        return self.make(*placeholders[: len(self.parameters)])


def send(conn: Any, messages: Sequence[Message]) -> None:
    """Send `messages`, as `core.frames.pack` made them, on a blocking connection.

    Raises:
        UnsupportedConnection: it is none; the message says what to do.
    """
    way = _find(BLOCKING, conn)
    if way is None:
        asynchronous = _find(ASYNCHRONOUS, conn) is not None
        raise _unsupported(conn, "it is asynchronous: use await pgpubsub.notify_async()" if asynchronous else None)
    way(conn, _statement(messages))


async def send_async(conn: Any, messages: Sequence[Message]) -> None:
    """Send `messages` on an asynchronous connection. Raises as `send`."""
    way = _find(ASYNCHRONOUS, conn)
    if way is None:
        blocking = _find(BLOCKING, conn) is not None
        raise _unsupported(conn, "it would block the event loop: use pgpubsub.notify()" if blocking else None)
    await way(conn, _statement(messages))


def _statement(messages: Sequence[Message]) -> Statement:
    return Statement(sql.notify if len(messages) == 1 else sql.notify_all, parameters(messages))


def _find(ways: Mapping[tuple[str, str], Way], conn: Any) -> Way | None:
    kinds = {type(conn), conn.__class__}  # where these differ, a proxy says what it stands for, as of a tracing library
    for (module, name), way in ways.items():
        owner = getattr(sys.modules.get(module), name, None)
        if owner is not None and any(issubclass(kind, owner) for kind in kinds):
            return way
    return None


# -- blocking

FORMAT = ("%s", "%s", "%s")
NUMERIC = ("$1", "$2", "$3")


def _psycopg(conn: Any, statement: Statement) -> None:
    # A plain cursor, since that of the connection may want other placeholders, or make something of the row.
    query: Any = statement.text(FORMAT)
    psycopg.Cursor(conn, row_factory=tuple_row).execute(query, statement.parameters)


def _dbapi(conn: Any, statement: Statement) -> None:
    with conn.cursor() as cursor:
        cursor.execute(statement.text(FORMAT), statement.parameters)


def _psycopg2(conn: Any, statement: Statement) -> None:
    if conn.async_:
        raise _unsupported(conn, "psycopg2's asynchronous connections have no transactions: bring a blocking one")
    _dbapi(conn, statement)


def _pygresql(conn: Any, statement: Statement) -> None:
    conn.query(statement.text(NUMERIC), statement.parameters)


def _django(conn: Any, statement: Statement) -> None:
    if (vendor := getattr(conn, "vendor", None)) != "postgresql":
        raise _unsupported(conn, f"it leads to {vendor or 'no database'} and not to PostgreSQL")
    _dbapi(conn, statement)


def _sqlalchemy_connection(conn: Any, statement: Statement) -> None:
    conn.execute(*_as_clause(conn, statement), execution_options=UNSTREAMED).close()


def _sqlalchemy_session(session: Any, statement: Statement) -> None:
    _sqlalchemy_connection(session.connection(), statement)


def _as_clause(conn: Any, statement: Statement) -> tuple[Any, dict[str, str]]:
    if conn.dialect.name != "postgresql":
        raise _unsupported(conn, f"it leads to {conn.dialect.name} and not to PostgreSQL")
    from sqlalchemy import text

    named = dict(zip(("first", "second", "third"), statement.parameters, strict=False))
    return text(statement.text([f":{name}" for name in named])), named


UNSTREAMED = {"stream_results": False}
"""With a server-side cursor, which may be the connection's default, it would not run before somebody fetches."""

BLOCKING: dict[tuple[str, str], Callable[[Any, Statement], None]] = {
    ("psycopg", "Connection"): _psycopg,
    ("psycopg2.extensions", "connection"): _psycopg2,
    ("pg", "DB"): _pygresql,
    ("pg", "Connection"): _pygresql,
    ("pgdb", "Connection"): _dbapi,
    ("sqlalchemy.engine", "Connection"): _sqlalchemy_connection,
    ("sqlalchemy.orm", "Session"): _sqlalchemy_session,
    ("sqlalchemy.orm", "scoped_session"): _sqlalchemy_session,
    ("django.db.backends.base.base", "BaseDatabaseWrapper"): _django,
    ("django.utils.connection", "ConnectionProxy"): _django,
}


# -- asynchronous


async def _psycopg_async(conn: Any, statement: Statement) -> None:
    query: Any = statement.text(FORMAT)
    await psycopg.AsyncCursor(conn, row_factory=tuple_row).execute(query, statement.parameters)


async def _asyncpg(conn: Any, statement: Statement) -> None:
    await conn.execute(statement.text(NUMERIC), *statement.parameters)


async def _sqlalchemy_async_connection(conn: Any, statement: Statement) -> None:
    await conn.execute(*_as_clause(conn, statement), execution_options=UNSTREAMED)


async def _sqlalchemy_async_session(session: Any, statement: Statement) -> None:
    await _sqlalchemy_async_connection(await session.connection(), statement)


ASYNCHRONOUS: dict[tuple[str, str], Callable[[Any, Statement], Awaitable[None]]] = {
    ("psycopg", "AsyncConnection"): _psycopg_async,
    ("asyncpg", "Connection"): _asyncpg,
    ("asyncpg.pool", "PoolConnectionProxy"): _asyncpg,
    ("sqlalchemy.ext.asyncio", "AsyncConnection"): _sqlalchemy_async_connection,
    ("sqlalchemy.ext.asyncio", "AsyncSession"): _sqlalchemy_async_session,
    ("sqlalchemy.ext.asyncio", "async_scoped_session"): _sqlalchemy_async_session,
}


# -- neither

SUPPORTED = (
    "bring the connection of psycopg 3, psycopg2, PyGreSQL, asyncpg, SQLAlchemy (a session too) or Django whose"
    " transaction it shall go with"
)

ADVICE = {
    r"builtins\.(str|bytes)": "a string is no connection; to send outside of any transaction, use"
    " pgpubsub.connect(dsn).notify() or a hub's",
    r"pgpubsub\..*": "it has a connection of its own: call its own notify()",
    r".*Engine": "open a connection or a session of it, and pass that",
    r".*[Ss]essionmaker": "make a session with it, and pass that",
    r".*Pool": "take a connection out of it, and pass that",
    r".*[Cc]ursor\w*": "pass its connection",
    r"sqlalchemy\.pool\..*": "pass SQLAlchemy's connection or session, or this one's driver_connection",
}
"""What to do with the things that people try, by the full name of the class, or of one that it inherits from."""


def _unsupported(conn: Any, advice: str | None) -> UnsupportedConnection:
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(conn).__mro__]
    for pattern, words in ADVICE.items():
        if advice is None and any(re.fullmatch(pattern, name) for name in names):
            advice = words
    return UnsupportedConnection(f"cannot send on {names[0]}: {advice or SUPPORTED}")
