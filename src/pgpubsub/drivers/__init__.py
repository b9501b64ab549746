"""The only code that touches a database driver.

`adapt` takes a connection of any supported driver and returns the one shape that the rest knows,
`interface.DriverConnection`. A driver other than psycopg 3 is never imported here: whoever brings one of
its connections has imported it already.
"""

from __future__ import annotations

import sys
from typing import Any

from pgpubsub.drivers.interface import DriverConnection
from pgpubsub.drivers.psycopg3 import Psycopg3Connection, psycopg
from pgpubsub.errors import UnsupportedConnection

__all__ = ["DriverConnection", "adapt", "identity"]


def adapt(conn: Any) -> DriverConnection:
    """Adapt a connection of psycopg 3, psycopg2 or PyGreSQL (`pg.DB` or what `pg.connect()` returns).

    Raises:
        UnsupportedConnection: it is anything else, or an asynchronous connection; the message says what
            to do with the things that people try.
    """
    kind = type(conn)  # not isinstance(): a closed pg.Connection answers that with a TypeError
    if issubclass(kind, psycopg.Connection):
        return Psycopg3Connection(conn)
    if (module := sys.modules.get("psycopg2")) and issubclass(kind, module.extensions.connection):
        from pgpubsub.drivers import psycopg2

        if not conn.async_:
            return psycopg2.Psycopg2Connection(conn)
    if (module := sys.modules.get("pg")) and issubclass(kind, (module.DB, module.Connection)):
        from pgpubsub.drivers import pygresql

        return pygresql.PyGreSQLConnection(conn)
    raise UnsupportedConnection(_advice(conn))


def identity(conn: Any) -> int:
    """A number that two objects share exactly when they are, or wrap, the same connection."""
    if (module := sys.modules.get("pg")) and issubclass(type(conn), module.DB):
        return id(conn.db or conn)
    return id(conn)


def _advice(conn: Any) -> str:
    supported = "bring a blocking connection of psycopg 3, psycopg2 or PyGreSQL (pg.DB)"
    if isinstance(conn, str):
        return f"a connection string is not a connection: use pgpubsub.connect(dsn), or {supported}"
    kind = f"{type(conn).__module__}.{type(conn).__qualname__}"
    if kind.startswith("pgdb."):
        return f"{kind} is PyGreSQL's DB-API 2 connection, which hides notifications; {supported}"
    if kind.startswith("sqlalchemy."):
        return f"{kind} is not a driver's connection; pass its connection.driver_connection"
    if kind.startswith(("psycopg.", "psycopg2.")):
        return f"{kind} is an asynchronous connection, or none at all; {supported}"
    return f"cannot listen on {kind}; {supported}, or use pgpubsub.connect()"
