"""Connections on which handlers do their work, in one transaction with the acknowledgement. Idle ones are kept.

To have one takes as long as the server cannot be reached, up to 30 seconds: a loop that handles entries survives that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

import psycopg
from psycopg import pq

from pgpubsub.drivers.psycopg3 import let_go
from pgpubsub.drivers.psycopg3_connect import answered_within, connect
from pgpubsub.errors import ConnectionFailed, PubSubError
from pgpubsub.randomness import new_delays

__all__ = ["AsyncConnections", "Connections", "check_open"]

KEPT = 4

SECONDS = 30.0
"""That it may take to connect."""


class AsyncConnections:
    """For tasks. `address` returns the connection string, each time that one is opened."""

    def __init__(self, address: Callable[[], Awaitable[str]]) -> None:
        self._address = address
        self._idle: list[psycopg.AsyncConnection[Any]] = []
        self._closed = False

    async def take(self) -> psycopg.AsyncConnection[Any]:
        """One of them, in autocommit mode, that works. Raises `ConnectionFailed`."""
        while self._idle:
            conn = self._idle.pop()
            with suppress(psycopg.Error), answered_within(SECONDS, conn):
                await conn.execute("")  # the server may have ended it, and nobody has noticed
                return conn
            await conn.close()
        why: Exception = TimeoutError("no answer")
        try:
            async with asyncio.timeout(SECONDS):
                for delay in new_delays():
                    await asyncio.sleep(delay)
                    try:
                        return await connect(await self._address())
                    except (psycopg.Error, OSError, ConnectionFailed) as error:
                        why = error
        except TimeoutError:
            pass
        raise _failed(why) from why

    async def begin(self) -> tuple[psycopg.AsyncConnection[Any], psycopg.AsyncTransaction]:
        """One of them with a transaction, which has been entered. Raises `ConnectionFailed`."""
        while True:
            conn = await self.take()
            transaction = psycopg.AsyncTransaction(conn)
            try:
                with answered_within(SECONDS, conn):
                    await transaction.__aenter__()
                return conn, transaction
            except psycopg.errors.ConnectionTimeout as error:
                await conn.close()
                raise _failed(error) from error
            except psycopg.OperationalError:  # it was ended in this moment
                await conn.close()

    async def give_back(self, conn: psycopg.AsyncConnection[Any]) -> None:
        """It is not used any more."""
        if _usable(conn) and len(self._idle) < KEPT and not self._closed:
            self._idle.append(conn)
        else:
            await conn.close()

    def close(self) -> None:
        """Close those that nobody uses, and the others when they are given back."""
        self._closed = True
        while self._idle:
            conn = self._idle.pop()
            conn.pgconn.finish()

    def disown(self) -> None:
        """After `fork()`, in the child."""
        for conn in self._idle:
            let_go(conn)


class Connections:
    """For threads."""

    def __init__(self, address: Callable[[], str]) -> None:
        self._address = address
        self._idle: list[psycopg.Connection[Any]] = []
        self._closed = False

    def take(self) -> psycopg.Connection[Any]:
        """One of them, in autocommit mode, that works. Raises `ConnectionFailed`."""
        while self._idle:
            conn = self._idle.pop()
            with suppress(psycopg.Error):
                conn.execute("")  # the server may have ended it, and nobody has noticed
                return conn
            conn.close()
        deadline = monotonic() + SECONDS
        why: Exception = TimeoutError("no answer")
        for delay in new_delays():
            if (left := deadline - monotonic() - delay) <= 0:
                break
            sleep(delay)
            try:
                return psycopg.Connection.connect(self._address(), autocommit=True, connect_timeout=max(2, round(left)))
            except (psycopg.Error, OSError, ConnectionFailed) as error:
                why = error
        raise _failed(why) from why

    def begin(self) -> tuple[psycopg.Connection[Any], psycopg.Transaction]:
        """One of them with a transaction, which has been entered. Raises `ConnectionFailed`."""
        while True:
            conn = self.take()
            transaction = psycopg.Transaction(conn)
            try:
                transaction.__enter__()
                return conn, transaction
            except psycopg.OperationalError:  # it was ended in this moment
                conn.close()

    def give_back(self, conn: psycopg.Connection[Any]) -> None:
        """It is not used any more."""
        if _usable(conn) and len(self._idle) < KEPT and not self._closed:
            self._idle.append(conn)
        else:
            conn.close()

    def close(self) -> None:
        """Close those that nobody uses, and the others when they are given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def disown(self) -> None:
        """After `fork()`, in the child."""
        for conn in self._idle:
            let_go(conn)


def check_open(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Raise if the transaction of this one has been ended, by a statement: an acknowledgement would be committed by
    itself, and with nothing."""
    if conn.pgconn.transaction_status == pq.TransactionStatus.IDLE:
        raise PubSubError("the handler has ended the transaction, by COMMIT or ROLLBACK: leave that to transaction()")


def _usable(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    return not conn.closed and conn.autocommit and conn.pgconn.transaction_status == pq.TransactionStatus.IDLE


def _failed(error: Exception) -> ConnectionFailed:
    words = " ".join(str(error).split())
    return ConnectionFailed(f"no connection for a handler's transaction within {SECONDS:g} s: {words}")
