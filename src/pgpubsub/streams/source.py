"""A few connections to read from, shared by all readers of a hub, and what is at the other end of each."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any, NamedTuple
from uuid import UUID
from weakref import WeakSet

import psycopg
from psycopg import pq
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from pgpubsub.drivers.interface import statement_error
from pgpubsub.errors import ConnectionLost, PubSubError
from pgpubsub.streams.installation import check_version, missing_schema, not_installed
from pgpubsub.streams.statements import Statements

__all__ = ["Home", "Session", "Source"]

CONNECTIONS = 4
"""That read, at most."""

ANSWER = 60.0
"""Seconds that the server may take for a page, or for a connection to be had."""

WHO_ARE_YOU = """
SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_postmaster_start_time(), pg_catalog.inet_server_addr(),
       pg_catalog.inet_server_port()
"""

SETTINGS = """
SELECT pg_catalog.set_config('search_path', 'pg_catalog', false),
       pg_catalog.set_config('default_transaction_isolation', 'read committed', false),
       pg_catalog.set_config('jit', 'off', false)
"""
"""A statement's snapshot is what a position is made of, so each needs one of its own. To compile a statement takes
longer than what we read."""

TRY_AGAIN = ("08", "57P", "53", "40", "58", "57014", "25006", "55P03")
"""SQLSTATEs, or their beginnings, of errors that pass: the connection, a shutdown, too many connections, a conflict
with recovery, I/O, a time-out (PostgreSQL manual, "PostgreSQL Error Codes")."""


class Home(NamedTuple):
    """Which history a session reads."""

    birth: UUID
    timeline: int
    in_recovery: bool


class Session:
    """A connection that reads, lent to one reader at a time."""

    def __init__(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self.conn = conn
        self.pooled = False
        """Whether a pooler stands between, so that the server at the other end may be another one each time."""
        self.server: object = None
        """What tells this server from others, and from itself before it was started again."""
        self._homes: dict[str, Home] = {}

    async def prepare(self) -> None:
        """Set it up."""
        row = await (await self.conn.execute(WHO_ARE_YOU)).fetchone()
        assert row is not None
        self.pooled = row[0] != self.conn.info.backend_pid
        self.server = row[1:]
        if self.pooled:  # what is pooled belongs to others too
            await self.conn.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
            await self.conn.set_read_only(True)
        else:
            await self.conn.execute(SETTINGS)

    async def home(self, statements: Statements) -> Home:
        """Whose history it is. A server that is not in recovery will not be as long as the session lasts, so it need
        not be asked again.

        Raises:
            StreamsNotInstalled: there are no streams, or none to work with.
        """
        home = self._homes.get(statements.schema)
        if home is None or home.in_recovery or self.pooled:
            row = await self.first(statements.session)
            if row is None:
                raise not_installed(statements.schema, psycopg.Error("the table of versions is empty"))
            number, serves_from, in_recovery, timeline, token = row
            check_version(statements.schema, number, serves_from, token is not None)
            home = self._homes[statements.schema] = Home(token, timeline, in_recovery)
        return home

    async def rows(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        """What `statement` returns."""
        cursor = psycopg.AsyncCursor(self.conn)
        query: Any = statement
        await cursor.execute(query, parameters or {}, prepare=not self.pooled, binary=True)
        return await cursor.fetchall()

    async def first(self, statement: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """The first row of that, or None."""
        rows = await self.rows(statement, parameters)
        return rows[0] if rows else None


class _Connection(psycopg.AsyncConnection[Any]):
    """One that remembers what is known of it, and tells when it cannot be made."""

    session: Session

    @classmethod
    async def connect(cls, conninfo: str = "", **keywords: Any) -> Any:
        source: Source = keywords.pop("source")
        attempt = asyncio.ensure_future(super().connect(conninfo, **keywords))
        source.attempts.add(attempt)
        try:
            conn = await attempt
        except (psycopg.Error, OSError) as error:
            source.failure = " ".join(str(error).split())
            raise
        except asyncio.CancelledError:
            if source.ended:  # the pool must not be cancelled, but has to know
                raise psycopg.OperationalError("nobody wants the connection any more") from None
            raise
        finally:
            source.attempts.discard(attempt)
        conn.session = Session(conn)
        source.connections.add(conn)
        return conn


class Source:
    """See the module.

    Args:
        address: returns the connection string, each time that one is opened.
    """

    def __init__(self, address: Callable[[], Awaitable[str]]) -> None:
        self._address = address
        self._pool: AsyncConnectionPool[Any] | None = None
        self.connections: WeakSet[psycopg.AsyncConnection[Any]] = WeakSet()
        """Those that there are."""
        self.failure = ""
        """Why the last attempt to connect failed."""
        self.attempts: set[asyncio.Task[psycopg.AsyncConnection[Any]]] = set()
        """Those that are being made."""
        self.ended = False
        """Whether they are of no use any more."""

    @asynccontextmanager
    async def session(self, statements: Statements) -> AsyncIterator[Session]:
        """One of them.

        Raises:
            ConnectionLost: it broke, or none is to be had at present. It may be tried again.
            ServerRefused, StreamsNotInstalled: trying again will not help.
        """
        pool = await self._opened()
        try:
            # In a pool one transaction, so that one server answers all that is asked. It can get no id, and each
            # statement has a snapshot of its own: positions may be taken in it.
            async with (
                asyncio.timeout(ANSWER),
                pool.connection(ANSWER) as conn,
                conn.transaction() if conn.session.pooled else nullcontext(),
            ):
                yield conn.session
        except (PoolTimeout, PoolClosed, TimeoutError) as error:
            raise ConnectionLost(f"no connection to read streams with: {self.failure or error}") from error
        except psycopg.Error as error:
            raise self._explained(statements.schema, error) from error

    async def close(self) -> None:
        """Close all."""
        pool, self._pool = self._pool, None
        self.ended = True
        for attempt in self.attempts:
            attempt.cancel()
        if pool is not None:
            await pool.close(timeout=1.0)

    def cut(self) -> None:
        """Break those that owe an answer. (To cancel a statement takes a connection of its own, and seconds where the
        server does not answer that either.)"""
        for conn in self.connections:
            if not conn.closed and conn.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
                with suppress(OSError), socket.socket(fileno=os.dup(conn.pgconn.socket)) as its_socket:
                    its_socket.shutdown(socket.SHUT_RDWR)

    def disown(self) -> None:
        """After `fork()`, in the child."""
        for conn in self.connections:
            if not conn.closed:
                os.close(conn.pgconn.socket)
                _inherited.append(conn)  # its destructor would complain
        pool, self._pool = self._pool, None
        _inherited.append(pool)  # and so would those of its tasks

    async def _opened(self) -> AsyncConnectionPool[Any]:
        if self._pool is None:
            self._pool = AsyncConnectionPool(
                self._address,
                connection_class=_Connection,
                kwargs={"autocommit": True, "source": self},
                min_size=1,
                max_size=CONNECTIONS,
                open=False,
                configure=lambda conn: conn.session.prepare(),
                timeout=ANSWER,
                reconnect_timeout=ANSWER,
                name="pgpubsub",
            )
            await self._pool.open()
        return self._pool

    def _explained(self, schema: str, error: psycopg.Error) -> PubSubError:
        sqlstate = error.sqlstate
        if missing_schema(sqlstate):
            return not_installed(schema, error)
        if sqlstate is None or sqlstate.startswith(TRY_AGAIN):
            return ConnectionLost(f"a stream could not be read: {' '.join(str(error).split())}")
        return statement_error("reading a stream", error, lost=False, sqlstate=sqlstate)


_inherited: list[object] = []
