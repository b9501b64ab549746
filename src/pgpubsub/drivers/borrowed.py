"""Running one statement on a connection that is the caller's, inside whatever transaction that has open.

It is run with the driver's own means, and nothing else is done to the connection. What the driver raises is left as it
is: frameworks decide by their own errors what is to be done with a transaction.

`BLOCKING` and `ASYNCHRONOUS` say whose connections are known, by the module and the name under which each publishes
the class. No such module is imported here before its owner did: whoever brings a connection has imported it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg.rows import tuple_row

from pgpubsub.errors import UnsupportedConnection

__all__ = ["Statement", "run", "run_async"]

Way = TypeVar("Way")


class Statement(NamedTuple):
    """One that returns at most one value; or several without parameters, which return nothing."""

    make: Callable[..., str]
    """Makes its text, given a placeholder for each parameter."""
    parameters: tuple[str | None, ...] = ()

    def text(self, placeholder: str) -> str:
        """With placeholders in the manner of `placeholder`, in which {} stands for their number. What looks like one
        elsewhere, as it may in a name, is escaped."""
        if not self.parameters:  # then nobody looks for any
            return self.make()
        numbers = range(1, len(self.parameters) + 1)
        text = self.make(*[f"\0{number}\0" for number in numbers])
        text = text.replace(*ESCAPES.get(placeholder, ("", "")))
        for number in numbers:
            text = text.replace(f"\0{number}\0", placeholder.format(number))
        return text


def run(conn: Any, statement: Statement, otherwise: str) -> Any:
    """Run `statement` on a blocking connection, and return the value of its first row's first column.

    Args:
        otherwise: what to do with an asynchronous one.

    Raises:
        UnsupportedConnection: it is no blocking connection; the message says what to do.
    """
    way = _find(BLOCKING, conn)
    if way is None:
        asynchronous = _find(ASYNCHRONOUS, conn) is not None
        raise _unsupported(conn, f"it is asynchronous: {otherwise}" if asynchronous else None)
    return way(conn, statement)


async def run_async(conn: Any, statement: Statement, otherwise: str) -> Any:
    """Run `statement` on an asynchronous connection. `otherwise` is what to do with a blocking one. Returns, and
    raises, as `run`."""
    way = _find(ASYNCHRONOUS, conn)
    if way is None:
        blocking = _find(BLOCKING, conn) is not None
        raise _unsupported(conn, f"it would block the event loop: {otherwise}" if blocking else None)
    return await way(conn, statement)


def _find(ways: Mapping[tuple[str, str], Way], conn: Any) -> Way | None:
    kinds = {type(conn), conn.__class__}  # where these differ, a proxy says what it stands for, as of a tracing library
    for (module, name), way in ways.items():
        owner = getattr(sys.modules.get(module), name, None)
        if owner is not None and any(issubclass(kind, owner) for kind in kinds):
            return way
    return None


# -- blocking

FORMAT = "%s"
NUMERIC = "${}"
NAMED = ":p{}"

ESCAPES = {FORMAT: ("%", "%%"), NAMED: (":", "\\:")}


def _psycopg(conn: Any, statement: Statement) -> Any:
    # A plain cursor, since that of the connection may want other placeholders, or make something of the row.
    query: Any = statement.text(FORMAT)
    cursor = psycopg.Cursor(conn, row_factory=tuple_row)
    return _value(cursor.execute(query, statement.parameters or None, prepare=_prepare(statement)))


def _prepare(statement: Statement) -> bool | None:
    """Whether psycopg is to prepare it: what may be several statements cannot be."""
    return None if statement.parameters else False


def _value(cursor: Any) -> Any:
    row = None if cursor.description is None else cursor.fetchone()
    if isinstance(row, Mapping):
        return next(iter(row.values()))
    return None if row is None else row[0]


def _dbapi(conn: Any, statement: Statement) -> Any:
    with conn.cursor() as cursor:
        cursor.execute(statement.text(FORMAT), statement.parameters or None)
        return _value(cursor)


def _psycopg2(conn: Any, statement: Statement) -> Any:
    if conn.async_:
        raise _unsupported(conn, "psycopg2's asynchronous connections have no transactions: bring a blocking one")
    return _dbapi(conn, statement)


def _pygresql(conn: Any, statement: Statement) -> Any:
    if not statement.parameters:
        conn.query(statement.text(NUMERIC))
        return None
    return conn.query(statement.text(NUMERIC), statement.parameters).getresult()[0][0]


def _django(conn: Any, statement: Statement) -> Any:
    if (vendor := getattr(conn, "vendor", None)) != "postgresql":
        raise _unsupported(conn, f"it leads to {vendor or 'no database'} and not to PostgreSQL")
    return _dbapi(conn, statement)


def _sqlalchemy_connection(conn: Any, statement: Statement) -> Any:
    if conn.dialect.name != "postgresql":
        raise _unsupported(conn, f"it leads to {conn.dialect.name} and not to PostgreSQL")
    from sqlalchemy import text

    if not statement.parameters:
        if conn.dialect.driver == "asyncpg":
            conn.exec_driver_sql("SELECT").close()  # which begins the transaction that SQLAlchemy wants
            conn.connection.dbapi_connection.run_async(lambda own: _asyncpg(own, statement))  # it prepares the others
            return None
        conn.exec_driver_sql(statement.text(NAMED), execution_options=UNSTREAMED | {"no_parameters": True}).close()
        return None
    named = {f"p{number}": value for number, value in enumerate(statement.parameters, 1)}
    return conn.execute(text(statement.text(NAMED)), named, execution_options=UNSTREAMED).scalar()


def _sqlalchemy_session(session: Any, statement: Statement) -> Any:
    return _sqlalchemy_connection(session.connection(), statement)


UNSTREAMED = {"stream_results": False}
"""With a server-side cursor, which may be the connection's default, it would not run before somebody fetches."""

BLOCKING: dict[tuple[str, str], Callable[[Any, Statement], Any]] = {
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


async def _psycopg_async(conn: Any, statement: Statement) -> Any:
    query: Any = statement.text(FORMAT)
    cursor = psycopg.AsyncCursor(conn, row_factory=tuple_row)
    await cursor.execute(query, statement.parameters or None, prepare=_prepare(statement))
    row = None if cursor.description is None else await cursor.fetchone()
    return None if row is None else row[0]


async def _asyncpg(conn: Any, statement: Statement) -> Any:
    if not statement.parameters:
        return await conn.execute(statement.text(NUMERIC))
    return await conn.fetchval(statement.text(NUMERIC), *statement.parameters)


async def _sqlalchemy_async_connection(conn: Any, statement: Statement) -> Any:
    return await conn.run_sync(_sqlalchemy_connection, statement)


async def _sqlalchemy_async_session(session: Any, statement: Statement) -> Any:
    return await _sqlalchemy_async_connection(await session.connection(), statement)


ASYNCHRONOUS: dict[tuple[str, str], Callable[[Any, Statement], Awaitable[Any]]] = {
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
