"""A connection on which statements are run one after the other, each by itself. When it broke, it is opened anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg
from psycopg import pq
from psycopg.rows import TupleRow

from pgpubsub.drivers.psycopg3 import break_off, let_go
from pgpubsub.drivers.psycopg3_connect import answered_within, connect
from pgpubsub.drivers.psycopg3_dial import SESSION_SETTINGS
from pgpubsub.errors import ConnectionFailed, ConnectionLost, NotLive, PubSubError, SendUncertain, ServerRefused
from pgpubsub.randomness import new_delays
from pgpubsub.streams.appending import ISOLATION
from pgpubsub.streams.installation import missing_schema

__all__ = ["Line", "needs_somebody"]

TRY_AGAIN = ("40", "53", "55P03", "57014", "58")
"""SQLSTATEs, or how they begin, of what passes, and was rolled back: conflicts, want of resources, locks,
cancellations, faults of the system."""

NO_PRIMARY = ("25006", "0A000")
"""SQLSTATEs of a server that is a standby by now."""

INSUFFICIENT_PRIVILEGE = "42501"

SETTINGS = f"{ISOLATION}, set_config('statement_timeout', '0', false), set_config('lock_timeout', '0', false)"
"""What the role has set for its own statements is not for ours, which have a time limit."""


class Line:
    """See the module.

    Args:
        address: returns the connection string, for each attempt.
        schema: where the channel layer's tables are.
        patience: seconds that a statement may take, with all attempts to connect.
        settings: a statement that is run when the connection is opened.
    """

    def __init__(self, address: Callable[[], Awaitable[str]], schema: str, patience: float, settings: str = "") -> None:
        self._address = address
        self._schema = schema
        self._patience = patience
        self._settings = settings
        self._lock = asyncio.Lock()
        self._conn: psycopg.AsyncConnection[Any] | None = None

    async def run(self, query: str, parameters: Sequence[Any], *, repeatable: bool = False) -> list[TupleRow]:
        """Run a statement and return its rows. One that is `repeatable` is run again if its fate is unknown.

        Raises:
            NotLive: there was no connection. SendUncertain: it broke, and nobody knows whether the statement was run.
            ServerRefused: it was not.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        why: Exception | None = None
        for delay in new_delays():
            if loop.time() + delay >= deadline:
                break
            await asyncio.sleep(delay)
            try:
                async with self._lock:
                    conn = await self._connected(deadline)
                    return await self._run(conn, query, parameters, deadline)
            except (ConnectionFailed, ConnectionLost, TimeoutError) as error:
                why = error
                if isinstance(error, SendUncertain) and not repeatable:
                    raise
        reason = str(why or "") or "no answer"
        raise NotLive(f"the channel layer could not reach the server for {self._patience:g} s: {reason}") from why

    async def _run(
        self, conn: psycopg.AsyncConnection[Any], query: str, parameters: Sequence[Any], deadline: float
    ) -> list[TupleRow]:
        timer = asyncio.get_running_loop().call_at(deadline, break_off, conn)
        try:
            cursor = psycopg.AsyncCursor(conn)
            await cursor.execute(query, parameters, prepare=True, binary=True)
            return [] if cursor.description is None else await cursor.fetchall()
        except psycopg.Error as error:
            raise self._explained(conn, error) from error
        finally:
            timer.cancel()

    async def _connected(self, deadline: float) -> psycopg.AsyncConnection[Any]:
        conn = self._conn
        if conn is not None and _alive(conn):
            return conn
        self.close()
        try:
            async with asyncio.timeout_at(deadline):
                conn = await connect(await self._address())
            try:
                with answered_within(deadline - asyncio.get_running_loop().time(), conn):
                    for statement in (SESSION_SETTINGS, SETTINGS, self._settings):
                        await conn.execute(statement.encode())
                    standby = await (await conn.execute("SELECT pg_catalog.pg_is_in_recovery()")).fetchone()
                if standby == (True,):
                    raise ConnectionFailed("it is a standby")
            except BaseException:
                conn.pgconn.finish()
                raise
        except (psycopg.Error, OSError, UnicodeError, PubSubError) as error:
            raise ConnectionFailed(f"cannot connect to PostgreSQL: {' '.join(str(error).split())}") from error
        self._conn = conn
        return conn

    def _explained(self, conn: psycopg.AsyncConnection[Any], error: psycopg.Error) -> PubSubError:
        words = " ".join(str(error).split())
        sqlstate = error.sqlstate or ""
        if conn.closed or sqlstate.startswith("57P"):  # its last words
            self.close()
            return SendUncertain(f"the connection broke, and nobody knows whether this was carried out: {words}")
        if sqlstate in NO_PRIMARY:
            self.close()  # the next may lead to one
            return ConnectionLost(words)
        if sqlstate.startswith(TRY_AGAIN):
            return ConnectionLost(words)  # it was rolled back, and is tried again
        if missing_schema(sqlstate):
            return ServerRefused(
                f"there is no channel layer in schema {self._schema!r} of this database: run the migration operation"
                f" InstallChannelLayer, or pgpubsub.contrib.channels.install(conn), once ({words})",
                sqlstate=sqlstate,
            )
        return ServerRefused(f"the server refused a statement of the channel layer: {words}", sqlstate=sqlstate)

    def close(self) -> None:
        """At once."""
        if self._conn is not None:
            self._conn.pgconn.finish()
            self._conn = None

    def disown(self) -> None:
        """After `fork()`, in the child."""
        if self._conn is not None:
            let_go(self._conn)


def needs_somebody(error: PubSubError) -> bool:
    """Whether a statement will go on failing until somebody installs something, or grants a right."""
    sqlstate = getattr(error, "sqlstate", None)
    return missing_schema(sqlstate) or sqlstate == INSUFFICIENT_PRIVILEGE


def _alive(conn: psycopg.AsyncConnection[Any]) -> bool:
    """Whether an idle connection seems to work: one that the server has ended is found out before anything is sent on
    it, of which nobody would know whether it was done."""
    try:
        for _ in range(2):  # the last words, and then the end
            conn.pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return conn.pgconn.status == pq.ConnStatus.OK
