"""A connection that reads streams, and whose history is at the other end.

It is one of those that an event loop watches: psycopg's cursors take as long as the server does for a short answer.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import lru_cache, partial
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer

from pgpubsub.drivers.arrays import Column, Question
from pgpubsub.drivers.interface import is_read_only_by_default
from pgpubsub.drivers.psycopg3_dial import CHECK_INTERVAL, CHECK_OFTEN, SESSION_SETTINGS
from pgpubsub.drivers.psycopg3_loop import Outcome, Psycopg3LoopConnection
from pgpubsub.errors import ConnectionLost, PubSubError
from pgpubsub.streams.installation import check_version, not_installed
from pgpubsub.streams.statements import Statements

__all__ = ["Home", "Session", "session_on"]

AT_HOME = 1.0
"""Seconds for which it is known whose history a server has."""

WHO_ARE_YOU = """
SELECT pg_catalog.pg_backend_pid(), extract(epoch FROM pg_catalog.pg_postmaster_start_time()),
       pg_catalog.inet_server_addr(), pg_catalog.inet_server_port()
"""
"""A time would be written in the role's style, of which psycopg reads ISO alone."""

ISO = "SELECT pg_catalog.set_config('datestyle', 'ISO', false)"
"""PgBouncer remembers that for whoever said it, and tells others nothing of it."""

SETTINGS = """
SELECT pg_catalog.set_config('search_path', 'pg_catalog', false),
       pg_catalog.set_config('default_transaction_isolation', 'read committed', false),
       pg_catalog.set_config('lock_timeout', '1s', false),
       pg_catalog.set_config('jit', 'off', false),
       pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', false),
       pg_catalog.set_config('array_nulls', 'on', false),
       pg_catalog.set_config('enable_seqscan', 'off', false)
"""
"""A statement's snapshot is what a position is made of, so each needs one of its own. Nobody is to wait for long
because somebody else's table is locked. To compile a statement takes longer than what we read. So does planning it
anew each time, which the server does by itself from about two million entries on: it takes the limit for a tenth of
what may be there, however much that is, and a plan made for a limit of 2,000 for a better one. It is the same plan. One
that was made while a table had a single page is kept, too: it must not read the whole table when that has grown."""

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"
"""The default may be one that a standby cannot have."""

_CERTAIN = {b"UTF8": "utf-8", b"LATIN1": "latin-1"}
"""Of others, Python's idea may differ from PostgreSQL's in some characters."""

Parameters = Mapping[str, str | Column | None]

PLACEHOLDER = re.compile(r"%(?:%|\((\w+)\)s)")


@lru_cache
def _numbered(statement: str) -> tuple[str, tuple[str, ...]]:
    """A statement with `$1` for psycopg's `%(name)s`, and the names in that order.

    >>> _numbered("SELECT %(a)s, %(b)s, %(a)s, '100 %%'")
    ("SELECT $1, $2, $1, '100 %'", ('a', 'b'))
    """
    numbers: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return "%" if match[1] is None else f"${numbers.setdefault(match[1], len(numbers) + 1)}"

    return PLACEHOLDER.sub(number, statement), tuple(numbers)


class Home(NamedTuple):
    """Which history a session reads."""

    birth: UUID
    timeline: int
    in_recovery: bool


class Session:
    """See the module. Whoever gives up waiting for an answer breaks it off: the server ends the statement when it
    notices, and does not where a pooler stands between or its system cannot look."""

    def __init__(self, conn: psycopg.AsyncConnection[Any], pid: int, server: object) -> None:
        self._pgconn = conn.pgconn
        self._connection = Psycopg3LoopConnection(conn, pid, prepared=pid == conn.info.backend_pid)
        self._connection.watch(lambda events: None, lambda lost: None)
        self.pooled = self._connection.pooled
        """Whether a pooler stands between, so that the server at the other end may be another one each time."""
        self.server = server
        """What tells this server from others, and from itself before it was started again."""
        self._one_at_a_time = asyncio.Lock()
        self._transformer = Transformer(conn)
        self._homes: dict[str, tuple[Home, float]] = {}  # by schema, and when that was asked

    @property
    def pid(self) -> int | None:
        """Of the server process at the other end, unless that may change."""
        return None if self.pooled else self._connection.server_pid

    @property
    def idle(self) -> bool:
        """Whether it can be lent."""
        return self._pgconn.transaction_status == pq.TransactionStatus.IDLE

    @property
    def owes(self) -> bool:
        """Whether an answer is waited for."""
        return self._pgconn.transaction_status == pq.TransactionStatus.ACTIVE

    def expressible(self, text: str) -> str:
        """The text, with escapes for what the server's encoding may not have."""
        encoding = _CERTAIN.get(self._pgconn.parameter_status(b"server_encoding") or b"", "ascii")
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def close(self, why: PubSubError | None = None) -> None:
        """Break it off. Who waits for an answer gets `why`."""
        self._connection.close(why)

    def disown(self) -> None:
        """After `fork()`, in the child."""
        self._connection.disown()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """One that reads. Each statement in it has a snapshot of its own."""
        await self.rows(BEGIN)
        try:
            yield
        except Exception:  # which says more than what becomes of the transaction
            if self._pgconn.transaction_status in (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR):
                with suppress(psycopg.Error, ConnectionLost):
                    await self.rows("ROLLBACK")
            raise
        await self.rows("COMMIT")

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

    async def rows(self, statement: str, parameters: Parameters | None = None) -> list[Any]:
        """What `statement` returns.

        Raises:
            psycopg.Error: what the server has against it, or the connection.
            ConnectionLost: it was closed.
            ServerRefused: it does not write, though it is a primary.
        """
        text, names = _numbered(statement)
        question = Question(text, [parameters[name] for name in names] if parameters else [])
        async with self._one_at_a_time:
            answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            self._connection.query("a statement", [question], partial(_tell, answer))
            try:
                outcome = await answer
            except asyncio.CancelledError:
                self.close()
                raise
        if isinstance(outcome, PubSubError):
            if isinstance(outcome.__cause__, psycopg.Error) and not is_read_only_by_default(outcome):
                raise outcome.__cause__
            raise outcome
        self._transformer.set_pgresult(outcome)
        try:
            return self._transformer.load_rows(0, outcome.ntuples, tuple)
        finally:
            self._transformer.set_pgresult(None)  # it may have megabytes

    async def first(self, statement: str, parameters: Parameters | None = None) -> Any:
        """The first row of that, or None."""
        rows = await self.rows(statement, parameters)
        return rows[0] if rows else None


async def session_on(conn: psycopg.AsyncConnection[Any]) -> Session:
    """Set a new connection up.

    Raises:
        psycopg.Error: what the server, or the connection, has against it.
    """
    await conn.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)  # see BEGIN
    async with conn.transaction():
        row = await (await conn.execute(WHO_ARE_YOU)).fetchone()
        assert row is not None
        pid, *server = row
        if not (conn.info.parameter_status("DateStyle") or "").startswith("ISO"):
            await conn.execute(ISO)
        if pid == conn.info.backend_pid:  # what is pooled belongs to others too
            await conn.execute(SESSION_SETTINGS)
            await conn.execute(SETTINGS)
    if pid == conn.info.backend_pid:
        with suppress(psycopg.Error):  # where the server's system cannot do that
            await conn.execute(CHECK_OFTEN, [CHECK_INTERVAL])
    return Session(conn, pid, server)


def _tell(answer: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not answer.done():  # else whoever asked is gone
        answer.set_result(outcome)
