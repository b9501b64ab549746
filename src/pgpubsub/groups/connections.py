"""Connections on which handlers do their work, in one transaction with the acknowledgement. Idle ones are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from psycopg import pq

from pgpubsub.errors import ConnectionFailed

__all__ = ["AsyncConnections", "Connections"]

KEPT = 4

SECONDS = 30.0
"""That it may take to connect."""


class AsyncConnections:
    """For tasks. `address` returns the connection string, each time that one is opened."""

    def __init__(self, address: Callable[[], Awaitable[str]]) -> None:
        self._address = address
        self._idle: list[psycopg.AsyncConnection[Any]] = []

    async def take(self) -> psycopg.AsyncConnection[Any]:
        """One of them, in autocommit mode. Raises `ConnectionFailed`."""
        while self._idle:
            conn = self._idle.pop()
            if not conn.closed:
                return conn
        try:
            async with asyncio.timeout(SECONDS):
                return await psycopg.AsyncConnection.connect(await self._address(), autocommit=True)
        except (psycopg.Error, OSError, TimeoutError) as error:
            raise _failed(error) from error

    async def give_back(self, conn: psycopg.AsyncConnection[Any]) -> None:
        """It is not used any more."""
        if _usable(conn) and len(self._idle) < KEPT:
            self._idle.append(conn)
        else:
            await conn.close()

    def close(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            conn = self._idle.pop()
            conn.pgconn.finish()


class Connections:
    """For threads."""

    def __init__(self, address: Callable[[], str]) -> None:
        self._address = address
        self._idle: list[psycopg.Connection[Any]] = []

    def take(self) -> psycopg.Connection[Any]:
        """One of them, in autocommit mode. Raises `ConnectionFailed`."""
        while self._idle:
            conn = self._idle.pop()
            if not conn.closed:
                return conn
        try:
            return psycopg.Connection.connect(self._address(), autocommit=True)
        except (psycopg.Error, OSError) as error:
            raise _failed(error) from error

    def give_back(self, conn: psycopg.Connection[Any]) -> None:
        """It is not used any more."""
        if _usable(conn) and len(self._idle) < KEPT:
            self._idle.append(conn)
        else:
            conn.close()

    def close(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            self._idle.pop().close()


def _usable(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    return not conn.closed and conn.autocommit and conn.pgconn.transaction_status == pq.TransactionStatus.IDLE


def _failed(error: Exception) -> ConnectionFailed:
    return ConnectionFailed(f"cannot connect for a handler's transaction: {' '.join(str(error).split())}")
