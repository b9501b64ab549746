"""A few connections to read from, shared by all readers of a hub, and what is at the other end of each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg import pq

from pgpubsub.drivers.interface import statement_error
from pgpubsub.drivers.psycopg3 import break_off, let_go
from pgpubsub.errors import ConnectionFailed, ConnectionLost, PubSubError
from pgpubsub.streams.installation import check_version, missing_schema, not_installed
from pgpubsub.streams.statements import Statements

__all__ = ["Home", "Session", "Source"]

CONNECTIONS = 4
"""That read, at most."""

ANSWER = 30.0
"""Seconds that the server may take for a page, or for a connection to be had."""

AT_HOME = 1.0
"""Seconds for which it is known whose history a server has."""

WHO_ARE_YOU = """
SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_postmaster_start_time(), pg_catalog.inet_server_addr(),
       pg_catalog.inet_server_port()
"""

SETTINGS = """
SELECT pg_catalog.set_config('search_path', 'pg_catalog', false),
       pg_catalog.set_config('default_transaction_isolation', 'read committed', false),
       pg_catalog.set_config('lock_timeout', '1s', false),
       pg_catalog.set_config('jit', 'off', false),
       pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', false),
       pg_catalog.set_config('enable_seqscan', 'off', false)
"""
"""A statement's snapshot is what a position is made of, so each needs one of its own. Nobody is to wait for long
because somebody else's table is locked. To compile a statement takes longer than what we read. So does planning it
anew each time, which the server does by itself from about two million entries on: it takes the limit for a tenth of
what may be there, however much that is, and a plan made for a limit of 2,000 for a better one. It is the same plan. One
that was made while a table had a single page is kept, too: it must not read the whole table when that has grown."""

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
        self._homes: dict[str, tuple[Home, float]] = {}  # by schema, and when that was asked

    @property
    def pid(self) -> int | None:
        """Of the server process at the other end, unless that may change."""
        return None if self.pooled else self.conn.info.backend_pid

    async def prepare(self) -> None:
        """Set it up."""
        # The default may be one that a standby cannot have.
        await self.conn.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
        async with self.conn.transaction():
            row = await (await self.conn.execute(WHO_ARE_YOU)).fetchone()
            assert row is not None
            self.pooled = row[0] != self.conn.info.backend_pid
            self.server = row[1:]
            if not self.pooled:  # what is pooled belongs to others too
                await self.conn.execute(SETTINGS)

    async def home(self, statements: Statements) -> Home:
        """Whose history it is. Another one may be restored in its place.

        Raises:
            StreamsNotInstalled: there are no streams, or none to work with.
        """
        home, asked_at = self._homes.get(statements.schema, (None, 0.0))
        if home is None or home.in_recovery or self.pooled or monotonic() > asked_at + AT_HOME:
            row = await self.first(statements.session)
            if row is None:
                raise not_installed(statements.schema, psycopg.Error("the table of versions is empty"))
            number, serves_from, in_recovery, timeline, token = row
            check_version(statements.schema, number, serves_from, token is not None)
            home = Home(token, timeline, in_recovery)
            self._homes[statements.schema] = (home, monotonic())
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


class Source:
    """See the module.

    Args:
        address: returns the connection string, each time that one is opened.
    """

    def __init__(self, address: Callable[[], Awaitable[str]]) -> None:
        self._address = address
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._idle: list[Session] = []
        self._lent: set[Session] = set()
        self._ended = False

    @asynccontextmanager
    async def session(self, statements: Statements) -> AsyncIterator[Session]:
        """One of them.

        Raises:
            ConnectionLost: it broke, or none is to be had at present. It may be tried again.
            ServerRefused, StreamsNotInstalled: trying again will not help.
        """
        try:
            async with asyncio.timeout(ANSWER), self._room:
                session = await self._lend()
                try:
                    # In a pool one transaction, so that one server answers all that is asked. It can get no id, and
                    # each statement has a snapshot of its own: positions may be taken in it.
                    async with session.conn.transaction() if session.pooled else nullcontext():
                        yield session
                finally:
                    self._take_back(session)
        except TimeoutError as error:
            raise ConnectionLost(f"the server that streams are read from did not answer in {ANSWER:g} s") from error
        except psycopg.Error as error:
            raise self._explained(statements.schema, error) from error

    @asynccontextmanager
    async def own(self, statements: Statements) -> AsyncIterator[Session]:
        """One for a long time, which may write. It is not one of those that are lent. Raises as `session`."""
        try:
            try:
                async with asyncio.timeout(ANSWER):
                    session = await self._connect()
            except TimeoutError as error:
                raise ConnectionLost(f"no connection was to be had within {ANSWER:g} s") from error
            self._lent.add(session)
            try:
                yield session
            finally:
                self._lent.discard(session)
                session.conn.pgconn.finish()
        except psycopg.Error as error:
            raise self._explained(statements.schema, error) from error

    def end(self) -> None:
        """Close all, at once."""
        self._ended = True
        for session in self._idle:
            session.conn.pgconn.finish()
        self._idle.clear()
        self.cut()

    def cut(self) -> None:
        """Break those that owe an answer."""
        for session in self._lent:
            break_off(session.conn)

    def disown(self) -> None:
        """After `fork()`, in the child."""
        for session in [*self._idle, *self._lent]:
            let_go(session.conn)
        self._idle.clear()

    async def _lend(self) -> Session:
        if self._ended:
            raise ConnectionLost("the hub was closed")
        if self._idle:
            session = self._idle.pop()
        else:
            session = await self._connect()
            await session.conn.set_read_only(True)
        self._lent.add(session)
        return session

    def _take_back(self, session: Session) -> None:
        self._lent.discard(session)
        if self._ended or session.conn.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            session.conn.pgconn.finish()
        else:
            self._idle.append(session)

    async def _connect(self) -> Session:
        try:
            conn = await psycopg.AsyncConnection.connect(await self._address(), autocommit=True)
        except (psycopg.Error, OSError, UnicodeError, ConnectionFailed) as error:
            raise ConnectionLost(f"cannot connect to read streams: {' '.join(str(error).split())}") from error
        session = Session(conn)
        try:
            await session.prepare()
        except BaseException:
            conn.pgconn.finish()
            raise
        return session

    def _explained(self, schema: str, error: psycopg.Error) -> PubSubError:
        sqlstate = error.sqlstate
        if missing_schema(sqlstate):
            return not_installed(schema, error)
        if sqlstate is None or sqlstate.startswith(TRY_AGAIN):
            return ConnectionLost(f"a stream could not be read: {' '.join(str(error).split())}")
        return statement_error("reading a stream", error, lost=False, sqlstate=sqlstate)
