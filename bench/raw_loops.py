"""Receivers that are built on a driver alone: the loop that its manual shows, and nothing around it.

None of them reconnects, notices a peer that vanished, stops at a deadline or survives a signal.
"""

from __future__ import annotations

import asyncio
from select import select
from time import monotonic_ns
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from bench.contestants import Arrival, Contestant, Receiver, Role
from bench.on_loop import LoopReceiver

__all__ = [
    "ASYNCPG",
    "PSYCOPG2",
    "PSYCOPG3",
    "RAW_LOOPS",
    "Asyncpg",
    "Psycopg2",
    "Psycopg3",
    "asyncpg_socket",
    "connect_asyncpg",
]


async def connect_asyncpg(dsn: str) -> Any:
    """An asyncpg connection by libpq's connection string, which it does not read itself."""
    import asyncpg

    given = conninfo_to_dict(dsn)
    given["database"] = given.pop("dbname")
    return await asyncpg.connect(**given)


def asyncpg_socket(connection: Any) -> int:
    """Its file descriptor."""
    return int(connection._transport.get_extra_info("socket").fileno())


class Psycopg3:
    """`for notify in connection.notifies()` (its manual, "Asynchronous notifications")."""

    def open(self, dsn: str, channel: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._connection.execute(f"LISTEN {channel}".encode())
        self._notifies = self._connection.notifies()

    def receive(self, count: int) -> Arrival:
        for notify in self._notifies:
            pid, channel, payload = notify.pid, notify.channel, notify.payload
            count -= 1
            if not count:
                break
        return Arrival(pid, channel, payload, monotonic_ns())

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._notifies.close()
        self._connection.close()


class Psycopg3Libpq(Psycopg3):
    """psycopg 3's wrapper of libpq and the fewest steps: as far down as pgpubsub could go."""

    def open(self, dsn: str, channel: str) -> None:
        super().open(dsn, channel)
        self._connection.pgconn.notify_handler = None

    def receive(self, count: int) -> Arrival:
        pgconn = self._connection.pgconn
        while count > 0:
            select((pgconn.socket,), (), ())
            pgconn.consume_input()
            while record := pgconn.notifies():
                pid, channel, payload = record.be_pid, record.relname.decode(), record.extra.decode()
                count -= 1
        return Arrival(pid, channel, payload, monotonic_ns())


class Psycopg2:
    """`select`, `connection.poll()`, and whatever is in `connection.notifies` (its manual, "Asynchronous
    notifications")."""

    def open(self, dsn: str, channel: str) -> None:
        import psycopg2

        self._connection = psycopg2.connect(dsn)
        self._connection.autocommit = True
        self._connection.cursor().execute(f"LISTEN {channel}")

    def receive(self, count: int) -> Arrival:
        connection = self._connection
        while count > 0:
            select((connection,), (), ())
            connection.poll()
            for notify in connection.notifies:
                pid, channel, payload = notify.pid, notify.channel, notify.payload
                count -= 1
            connection.notifies.clear()
        return Arrival(pid, channel, payload, monotonic_ns())

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()


class PyGreSQL:
    """`select`, then `getnotify()` until it has no more."""

    def open(self, dsn: str, channel: str) -> None:
        import pg

        self._connection: Any = pg.connect(dsn)
        self._connection.query(f"LISTEN {channel}")

    def receive(self, count: int) -> Arrival:
        connection = self._connection
        while count > 0:
            select((connection,), (), ())
            while notify := connection.getnotify():
                channel, pid, payload = notify
                count -= 1
        return Arrival(pid, channel, payload, monotonic_ns())

    def fileno(self) -> int:
        return int(self._connection.fileno())

    def close(self) -> None:
        self._connection.close()


class Asyncpg(LoopReceiver):
    """A callback (its manual, "Connection.add_listener()"), on asyncio's own loop."""

    async def start(self, dsn: str, channel: str) -> None:
        self._connection = await connect_asyncpg(dsn)
        await self._connection.add_listener(channel, self._on_notification)

    async def take(self, count: int) -> Arrival:
        self._missing = count
        self._last: asyncio.Future[Arrival] = self._loop.create_future()
        return await self._last

    def _on_notification(self, connection: object, pid: int, channel: str, payload: str) -> None:
        self._missing -= 1
        if not self._missing:
            self._last.set_result(Arrival(pid, channel, payload, monotonic_ns()))

    def fileno(self) -> int:
        return asyncpg_socket(self._connection)

    async def stop(self) -> None:
        self._connection.terminate()  # close() would complain that somebody still listens


PSYCOPG3 = "psycopg 3 notifies()"
"""The raw loop on the driver that pgpubsub itself uses."""
PSYCOPG2 = "psycopg2 poll()"
ASYNCPG = "asyncpg add_listener()"

RAW_LOOPS: tuple[Contestant[Receiver], ...] = (
    Contestant(PSYCOPG3, Role.PEER, Psycopg3),
    Contestant(PSYCOPG2, Role.PEER, Psycopg2, driver="psycopg2"),
    Contestant("PyGreSQL getnotify()", Role.PEER, PyGreSQL, driver="pg"),
    Contestant(ASYNCPG, Role.PEER, Asyncpg, driver="asyncpg"),
    Contestant("psycopg 3's libpq wrapper", Role.EXTRA, Psycopg3Libpq),
)
