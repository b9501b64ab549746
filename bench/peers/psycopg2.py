"""psycopg2."""

from __future__ import annotations

import threading
from select import select
from time import monotonic_ns

from bench.callers import POOL_SIZES, ByThreads
from bench.contestants import Arrival
from bench.peers.peer import Peer
from bench.publishing import BlockingPublisher, Notify

__all__ = ["PEER", "Echo", "Pool", "Publisher", "Receiver"]

PEER = Peer(
    "psycopg2-binary",
    "2.9.13",
    "`select` on the connection, `poll()`, then all of `connection.notifies`; `cursor.execute()` in autocommit mode;"
    " `ThreadedConnectionPool` behind a semaphore, since it raises when it is exhausted",
    "https://www.psycopg.org/docs/advanced.html#asynchronous-notifications, https://www.psycopg.org/docs/pool.html",
    "streams, groups: psycopg 3 stands for tables by hand",
)

STATEMENT = "SELECT pg_notify(%s, %s)"


class Receiver:
    """`select`, `connection.poll()`, and whatever is in `connection.notifies`."""

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


class Echo:
    """`cursor.execute()`, then `connection.notifies`. psycopg2 prepares nothing."""

    def open(self, dsn: str, channel: str) -> None:
        import psycopg2

        self._channel = channel
        self._connection = psycopg2.connect(dsn)
        self._connection.autocommit = True
        self._cursor = self._connection.cursor()
        self._cursor.execute(f"LISTEN {channel}")

    def echo(self, payload: str) -> str:
        self._cursor.execute(STATEMENT, (self._channel, payload))
        while not self._connection.notifies:
            self._connection.poll()
        return str(self._connection.notifies.pop(0).payload)

    def close(self) -> None:
        self._connection.close()


class Publisher(BlockingPublisher):
    """`cursor.execute()`."""

    def start(self, dsn: str) -> Notify:
        import psycopg2

        connection = psycopg2.connect(dsn)
        connection.autocommit = True
        cursor = connection.cursor()
        return lambda *args: cursor.execute(STATEMENT, args), connection.close


class Pool(ByThreads):
    """`cursor.execute()` on a connection of its pool, in autocommit mode."""

    sizes = POOL_SIZES

    def start(self, dsn: str, size: int) -> Notify:
        from psycopg2.pool import ThreadedConnectionPool

        pool = ThreadedConnectionPool(size, size, dsn)
        connections = [pool.getconn() for _ in range(size)]
        for connection in connections:
            connection.autocommit = True
            pool.putconn(connection)
        free = threading.Semaphore(size)

        def notify(channel: str, payload: str) -> None:
            with free:
                connection = pool.getconn()
                try:
                    with connection.cursor() as cursor:
                        cursor.execute(STATEMENT, (channel, payload))
                finally:
                    pool.putconn(connection)

        return notify, pool.closeall
