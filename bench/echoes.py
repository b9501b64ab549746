"""Contestants that receive what they send, on one connection, with nothing in between."""

from __future__ import annotations

import psycopg

import pgpubsub
from bench.contestants import Contestant, Echo, Role

__all__ = ["ECHOES", "PSYCOPG3"]

STATEMENT = "SELECT pg_notify(%s, %s)"


class PubSubEcho:
    """`pubsub.notify()`, then `pubsub.get_event()`."""

    def open(self, dsn: str, channel: str) -> None:
        self._channel = channel
        self._pubsub = pgpubsub.connect(dsn)
        self._pubsub.listen(channel)

    def echo(self, payload: str) -> str:
        self._pubsub.notify(self._channel, payload)
        while (event := self._pubsub.get_event()) is None:
            pass
        return str(event.payload)

    def close(self) -> None:
        self._pubsub.close()


class Psycopg3Echo:
    """`connection.execute()`, then `connection.notifies()`. As psycopg does by default, it prepares the
    statement on the server once it has been run five times."""

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


class Psycopg3UnpreparedEcho(Psycopg3Echo):
    """The same without preparing the statement, which is how pgpubsub sends."""

    prepare = False


class Psycopg2Echo:
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


PSYCOPG3 = "psycopg 3 execute(), notifies()"

ECHOES: tuple[Contestant[Echo], ...] = (
    Contestant("pgpubsub notify(), get_event()", Role.SUBJECT, PubSubEcho),
    Contestant(PSYCOPG3, Role.PEER, Psycopg3Echo),
    Contestant("psycopg2 execute(), notifies", Role.PEER, Psycopg2Echo, driver="psycopg2"),
    Contestant("psycopg 3, prepare=False", Role.EXTRA, Psycopg3UnpreparedEcho),
)
