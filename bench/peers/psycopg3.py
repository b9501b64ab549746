"""psycopg 3, with its pool."""

from __future__ import annotations

import select
from collections.abc import Sequence
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import psycopg

from bench.callers import POOL_SIZES, ByTasks, ByThreads
from bench.contestants import Arrival
from bench.ground import CHANNEL
from bench.peers.peer import Peer
from bench.publishing import AsyncNotify, BlockingPublisher, LoopPublisher, Notify

if TYPE_CHECKING:
    from bench.hub.fleet import Tally

__all__ = [
    "PEER",
    "AsyncPool",
    "AsyncPublisher",
    "Echo",
    "Entrant",
    "Executemany",
    "LibpqReceiver",
    "Pool",
    "Publisher",
    "Receiver",
    "Unnest",
    "UnpreparedEcho",
    "async_pool",
    "connections",
    "pool",
]

PEER = Peer(
    "psycopg",
    "3.3.9",
    "`for notify in connection.notifies()`; `execute()` in autocommit mode, which prepares a statement from its sixth"
    " run on; its pool, in autocommit mode, or each call would be three round trips; `executemany()` in a transaction,"
    " which travels in a pipeline",
    "https://www.psycopg.org/psycopg3/docs/advanced/async.html#asynchronous-notifications,"
    " .../advanced/prepare.html, .../advanced/pool.html, .../advanced/pipeline.html",
)

STATEMENT = "SELECT pg_notify(%s, %s)"
UNNEST = "SELECT pg_notify(c, p) FROM unnest(%s::text[], %s::text[]) AS m (c, p)"


class Receiver:
    """`for notify in connection.notifies()`."""

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


class LibpqReceiver(Receiver):
    """Its wrapper of libpq and the fewest steps: as far down as pgpubsub could go."""

    def open(self, dsn: str, channel: str) -> None:
        super().open(dsn, channel)
        self._connection.pgconn.notify_handler = None

    def receive(self, count: int) -> Arrival:
        pgconn = self._connection.pgconn
        while count > 0:
            select.select((pgconn.socket,), (), ())
            pgconn.consume_input()
            while record := pgconn.notifies():
                pid, channel, payload = record.be_pid, record.relname.decode(), record.extra.decode()
                count -= 1
        return Arrival(pid, channel, payload, monotonic_ns())


class Echo:
    """`connection.execute()`, then `connection.notifies()`."""

    prepare: bool | None = None

    def open(self, dsn: str, channel: str) -> None:
        self._channel = channel
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._connection.execute(f"LISTEN {channel}".encode())

    def echo(self, payload: str) -> str:
        self._connection.execute(STATEMENT, (self._channel, payload), prepare=self.prepare)
        while True:
            for notify in self._connection.notifies(timeout=0):
                return notify.payload

    def close(self) -> None:
        self._connection.close()


class UnpreparedEcho(Echo):
    """The same without preparing the statement."""

    prepare = False


class Publisher(BlockingPublisher):
    """`connection.execute()`."""

    def start(self, dsn: str) -> Notify:
        connection = psycopg.connect(dsn, autocommit=True)
        return lambda *args: connection.execute(STATEMENT, args), connection.close


class AsyncPublisher(LoopPublisher):
    """`await connection.execute()`."""

    async def start(self, dsn: str) -> AsyncNotify:
        connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        return lambda *args: connection.execute(STATEMENT, args), connection.close


async def async_pool(dsn: str, size: int) -> Any:
    """So many connections in autocommit mode."""
    from psycopg_pool import AsyncConnectionPool

    opened = AsyncConnectionPool(dsn, min_size=size, max_size=size, kwargs={"autocommit": True}, open=False)
    await opened.open(wait=True)
    return opened


def pool(dsn: str, size: int) -> Any:
    """The same for threads."""
    from psycopg_pool import ConnectionPool

    opened = ConnectionPool(dsn, min_size=size, max_size=size, kwargs={"autocommit": True}, open=False)
    opened.open(wait=True)
    return opened


class AsyncPool(ByTasks):
    """`await connection.execute()` on a connection of the pool."""

    sizes = POOL_SIZES

    async def start(self, dsn: str, size: int) -> AsyncNotify:
        connections = await async_pool(dsn, size)

        async def notify(channel: str, payload: str) -> None:
            async with connections.connection() as connection:
                await connection.execute(STATEMENT, (channel, payload))

        return notify, connections.close


class Pool(ByThreads):
    """`connection.execute()` on a connection of the pool."""

    sizes = POOL_SIZES

    def start(self, dsn: str, size: int) -> Notify:
        connections = pool(dsn, size)

        def notify(channel: str, payload: str) -> None:
            with connections.connection() as connection:
                connection.execute(STATEMENT, (channel, payload))

        return notify, connections.close


class _Many:
    def open(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)

    def close(self) -> None:
        self._connection.close()


class Unnest(_Many):
    """One statement, by hand, with two arrays as parameters."""

    def send(self, pairs: Sequence[tuple[str, str]]) -> None:
        channels, payloads = zip(*pairs, strict=True)
        self._connection.execute(UNNEST, (list(channels), list(payloads)))


class Executemany(_Many):
    """`cursor.executemany()` in a transaction."""

    def send(self, pairs: Sequence[tuple[str, str]]) -> None:
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(STATEMENT, pairs)


class Entrant:
    """`connection.execute("LISTEN ...")`, one after the other."""

    def open(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)

    def enter(self, channels: list[str]) -> None:
        for channel in channels:
            self._connection.execute(f"LISTEN {channel}".encode())

    def close(self) -> None:
        self._connection.close()


def connections(dsn: str, size: int, tally: Tally) -> None:
    """A connection for each and one loop for all: `epoll`, then its wrapper of libpq, in the fewest steps."""
    opened = [psycopg.connect(dsn, autocommit=True) for _ in range(size)]
    poll = select.epoll()
    by_socket = {}
    for connection in opened:
        connection.execute(f"LISTEN {CHANNEL}".encode())
        connection.pgconn.notify_handler = None
        by_socket[connection.pgconn.socket] = connection.pgconn
        poll.register(connection.pgconn.socket, select.EPOLLIN)
        tally.enter()
    while True:
        for socket, _ in poll.poll():
            pgconn = by_socket[socket]
            pgconn.consume_input()
            while record := pgconn.notifies():
                tally.arrive(record.extra.decode())
