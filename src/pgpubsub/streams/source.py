"""A few connections to read from, shared by all readers of a hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext

import psycopg

from pgpubsub.drivers.interface import statement_error
from pgpubsub.drivers.psycopg3 import ENDING
from pgpubsub.drivers.psycopg3_connect import connect
from pgpubsub.errors import ConnectionFailed, ConnectionLost, PubSubError
from pgpubsub.streams.installation import missing_schema, not_installed
from pgpubsub.streams.session import Session, session_on
from pgpubsub.streams.statements import Statements

__all__ = ["Source"]

CONNECTIONS = 4
"""That read, at most."""

ANSWER = 30.0
"""Seconds that the server may take for a page, or for a connection to be had."""

TRY_AGAIN = ("08", "57P", "53", "40", "58", "57014", "25006", "55P03")
"""SQLSTATEs, or their beginnings, of errors that pass: the connection, a shutdown, too many connections, a conflict
with recovery, I/O, a time-out (PostgreSQL manual, "PostgreSQL Error Codes")."""


class Source:
    """See the module.

    Args:
        address: returns the connection string, each time that one is opened.
    """

    def __init__(self, address: Callable[[], Awaitable[str]]) -> None:
        self._address = address
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._idle: list[Session] = []
        self._lent: dict[Session, bool] = {}  # and whether each is spared
        self._ended = False

    @asynccontextmanager
    async def session(self, statements: Statements, *, spare: bool = False) -> AsyncIterator[Session]:
        """One of them.

        Args:
            spare: whether `cut` is to leave it alone: what was cut off has to come to its end some time.

        Raises:
            ConnectionLost: it broke, or none is to be had at present. It may be tried again.
            ServerRefused, StreamsNotInstalled: trying again will not help.
        """
        try:
            async with asyncio.timeout(ANSWER), self._room:
                session = await self._lend(spare)
                try:
                    # In a pool one transaction, so that one server answers all that is asked. It can get no id, and
                    # each statement has a snapshot of its own: positions may be taken in it.
                    async with session.transaction() if session.pooled else nullcontext():
                        yield session
                finally:
                    self._take_back(session)
        except TimeoutError as error:
            raise ConnectionLost(f"the server that streams are read from did not answer in {ANSWER:g} s") from error
        except psycopg.Error as error:
            raise self._explained("reading a stream", statements.schema, error) from error

    @asynccontextmanager
    async def own(self, statements: Statements) -> AsyncIterator[Session]:
        """One for a long time, which may write. It is not one of those that are lent. Raises as `session`."""
        try:
            try:
                async with asyncio.timeout(ANSWER):
                    session = await self._connect()
            except TimeoutError as error:
                raise ConnectionLost(f"no connection was to be had within {ANSWER:g} s") from error
            self._lent[session] = False
            try:
                yield session
            finally:
                del self._lent[session]
                session.close()
        except psycopg.Error as error:
            raise self._explained("a statement about a stream", statements.schema, error) from error

    def end(self) -> None:
        """Close all, at once."""
        self._ended = True
        for session in self._lent:
            self._lent[session] = False
        self.cut()

    def cut(self) -> None:
        """The server at the other end may not be there any more, or the way to it: use none of the connections that lie
        idle, and break those that owe an answer. For all that is known here it may have been on its way."""
        while self._idle:
            self._idle.pop().close()
        for session, spared in self._lent.items():
            if session.owes and not spared:
                session.close(ConnectionLost("the hub was cut off from the server meanwhile"))

    def disown(self) -> None:
        """After `fork()`, in the child."""
        for session in [*self._idle, *self._lent]:
            session.disown()
        self._idle.clear()

    async def _lend(self, spare: bool) -> Session:
        if self._ended:
            raise ConnectionLost("the hub was closed")
        while self._idle:
            session = self._idle.pop()
            if session.idle:
                break
        else:
            session = await self._connect()
        self._lent[session] = spare
        return session

    def _take_back(self, session: Session) -> None:
        del self._lent[session]
        if self._ended or not session.idle:
            session.close()
        else:
            self._idle.append(session)

    async def _connect(self) -> Session:
        try:
            conn = await connect(await self._address())
        except (psycopg.Error, OSError, UnicodeError, ConnectionFailed) as error:
            raise ConnectionLost(f"cannot connect to read streams: {' '.join(str(error).split())}") from error
        try:
            return await session_on(conn)
        except BaseException:
            conn.pgconn.finish()
            raise

    def _explained(self, what: str, schema: str, error: psycopg.Error) -> PubSubError:
        sqlstate = error.sqlstate
        if missing_schema(sqlstate):
            return not_installed(schema, error)
        if sqlstate is None or sqlstate.startswith(TRY_AGAIN) or error.diag.severity_nonlocalized in ENDING:
            return ConnectionLost(f"{what} failed: {' '.join(str(error).split())}")
        return statement_error(what, error, lost=False, sqlstate=sqlstate)
