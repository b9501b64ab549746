"""PyGreSQL, its classic interface `pg`."""

from __future__ import annotations

from select import select
from time import monotonic_ns
from typing import Any

from bench.contestants import Arrival
from bench.peers.peer import Peer
from bench.publishing import BlockingPublisher, Notify

__all__ = ["PEER", "Echo", "Publisher", "Receiver"]

PEER = Peer(
    "PyGreSQL",
    "6.2.3",
    "`select`, then `getnotify()` until it has no more, which is the loop of its own `NotificationHandler` without the"
    " dictionary; `query_prepared()`",
    "https://pygresql.org/contents/pg/connection.html (`getnotify`, `prepare`),"
    " https://pygresql.org/contents/pg/notification.html",
    "many threads: it has no pool; one connection to many channels: it has no callbacks",
)

STATEMENT = "SELECT pg_notify($1, $2)"
NAME = "notify"


def _listening(dsn: str, channel: str) -> Any:
    import pg

    connection = pg.connect(dsn)
    connection.query(f"LISTEN {channel}")
    return connection


class Receiver:
    """`select`, then `getnotify()` until it has no more."""

    def open(self, dsn: str, channel: str) -> None:
        self._connection = _listening(dsn, channel)

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


class Echo:
    """`query_prepared()`, then `getnotify()`."""

    def open(self, dsn: str, channel: str) -> None:
        self._channel = channel
        self._connection = _listening(dsn, channel)
        self._connection.prepare(NAME, STATEMENT)

    def echo(self, payload: str) -> str:
        self._connection.query_prepared(NAME, (self._channel, payload))
        while not (notify := self._connection.getnotify()):
            pass
        return str(notify[2])

    def close(self) -> None:
        self._connection.close()


class Publisher(BlockingPublisher):
    """`query_prepared()`."""

    def start(self, dsn: str) -> Notify:
        import pg

        connection = pg.connect(dsn)
        connection.prepare(NAME, STATEMENT)
        return lambda *args: connection.query_prepared(NAME, args), connection.close
