"""Who sends: one notification after the other, each committed before the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic_ns

import psycopg

import pgpubsub
from bench.on_loop import new_uvloop
from bench.raw_loops import connect_asyncpg

__all__ = ["AsyncHub", "AsyncHubOnUvloop", "Asyncpg", "AsyncpgOnUvloop", "Hub", "Psycopg3", "Psycopg3Async"]

PSYCOPG_STATEMENT = "SELECT pg_notify(%s, %s)"
ASYNCPG_STATEMENT = "SELECT pg_notify($1, $2)"

Call = Callable[[str, str], object]
AsyncCall = Callable[[str, str], Awaitable[object]]


class _Blocking:
    def open(self, dsn: str, channel: str) -> None:
        self._channel = channel
        self._notify: Call
        self._close: Callable[[], object]
        self._notify, self._close = self.start(dsn)

    def start(self, dsn: str) -> tuple[Call, Callable[[], object]]:
        raise NotImplementedError

    def publish(self, payload: str, times: int) -> list[int]:
        notify, channel, took = self._notify, self._channel, []
        for _ in range(times):
            begun = monotonic_ns()
            notify(channel, payload)
            took.append(monotonic_ns() - begun)
        return took

    def close(self) -> None:
        self._close()


class Hub(_Blocking):
    """`hub.notify()`."""

    def start(self, dsn: str) -> tuple[Call, Callable[[], object]]:
        hub = pgpubsub.Hub(dsn).__enter__()
        return hub.notify, hub.close


class Psycopg3(_Blocking):
    """`connection.execute()`; from the sixth time on, psycopg has the statement prepared (its manual, "Prepared
    statements")."""

    def start(self, dsn: str) -> tuple[Call, Callable[[], object]]:
        connection = psycopg.connect(dsn, autocommit=True)
        return lambda *args: connection.execute(PSYCOPG_STATEMENT, args), connection.close


class _OnLoop:
    new_loop = staticmethod(asyncio.new_event_loop)

    def open(self, dsn: str, channel: str) -> None:
        self._channel = channel
        self._loop = self.new_loop()
        self._notify: AsyncCall
        self._close: Callable[[], Awaitable[object]]
        self._notify, self._close = self._loop.run_until_complete(self.start(dsn))

    async def start(self, dsn: str) -> tuple[AsyncCall, Callable[[], Awaitable[object]]]:
        raise NotImplementedError

    def publish(self, payload: str, times: int) -> list[int]:
        return self._loop.run_until_complete(self._publish(payload, times))

    async def _publish(self, payload: str, times: int) -> list[int]:
        notify, channel, took = self._notify, self._channel, []
        for _ in range(times):
            begun = monotonic_ns()
            await notify(channel, payload)
            took.append(monotonic_ns() - begun)
        return took

    def close(self) -> None:
        async def close() -> None:
            await self._close()

        self._loop.run_until_complete(close())
        self._loop.close()


class AsyncHub(_OnLoop):
    """`await hub.notify()`."""

    async def start(self, dsn: str) -> tuple[AsyncCall, Callable[[], Awaitable[object]]]:
        hub = await pgpubsub.AsyncHub(dsn).__aenter__()
        return hub.notify, hub.close


class AsyncHubOnUvloop(AsyncHub):
    """The same on uvloop."""

    new_loop = staticmethod(new_uvloop)


class Psycopg3Async(_OnLoop):
    """`await connection.execute()`, prepared likewise."""

    async def start(self, dsn: str) -> tuple[AsyncCall, Callable[[], Awaitable[object]]]:
        connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        return lambda *args: connection.execute(PSYCOPG_STATEMENT, args), connection.close


class Asyncpg(_OnLoop):
    """`await connection.execute()` (its manual, "Connection.execute()"); it prepares and caches the statement."""

    async def start(self, dsn: str) -> tuple[AsyncCall, Callable[[], Awaitable[object]]]:
        connection = await connect_asyncpg(dsn)
        return lambda *args: connection.execute(ASYNCPG_STATEMENT, *args), connection.close


class AsyncpgOnUvloop(Asyncpg):
    """The same on uvloop."""

    new_loop = staticmethod(new_uvloop)
