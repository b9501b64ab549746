"""Who is called by many threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pgpubsub
from bench.hub.publishers import PSYCOPG_STATEMENT
from bench.sending.callers import ByThreads, Call
from bench.sending.tasks import POOL_SIZES

__all__ = ["Hub", "Psycopg2Pool", "PsycopgPool"]

Started = tuple[Call, Callable[[], object]]


class Hub(ByThreads):
    """`hub.notify()`."""

    def start(self, dsn: str, size: int) -> Started:
        hub = pgpubsub.Hub(dsn).__enter__()
        return hub.notify, hub.close


class PsycopgPool(ByThreads):
    """`connection.execute()` on a connection of psycopg's pool, in autocommit mode."""

    sizes = POOL_SIZES

    def start(self, dsn: str, size: int) -> Started:
        from psycopg_pool import ConnectionPool

        pool = ConnectionPool(dsn, min_size=size, max_size=size, kwargs={"autocommit": True}, open=False)
        pool.open(wait=True)

        def notify(channel: str, payload: str) -> None:
            with pool.connection() as connection:
                connection.execute(PSYCOPG_STATEMENT, (channel, payload))

        return notify, pool.close


class Psycopg2Pool(ByThreads):
    """`cursor.execute()` on a connection of psycopg2's pool, in autocommit mode; behind a semaphore, since the pool
    raises when it is exhausted."""

    sizes = POOL_SIZES

    def start(self, dsn: str, size: int) -> Started:
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
                        cursor.execute(PSYCOPG_STATEMENT, (channel, payload))
                finally:
                    pool.putconn(connection)

        return notify, pool.closeall
