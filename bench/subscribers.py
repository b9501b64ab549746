"""Receivers that are built on `PubSub`, and one that receives what it sends."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic_ns

import pgpubsub
from bench.contestants import Arrival

__all__ = ["Echo", "Events", "EventsOverPsycopg2", "GetEvents"]


class _Subscriber:
    def connect(self, dsn: str) -> pgpubsub.PubSub:
        return pgpubsub.connect(dsn)

    def open(self, dsn: str, channel: str) -> None:
        self._pubsub = self.connect(dsn)
        self._pubsub.listen(channel)
        self._events: Iterator[pgpubsub.Notify] = self._pubsub.events()

    def fileno(self) -> int:
        return self._pubsub.fileno()

    def close(self) -> None:
        self._pubsub.close()


class Events(_Subscriber):
    """`for event in pubsub.events()`, with its default timeout."""

    def receive(self, count: int) -> Arrival:
        for event in self._events:
            pid, channel, payload = event
            count -= 1
            if not count:
                break
        return Arrival(pid, channel, payload, monotonic_ns())


class GetEvents(_Subscriber):
    """`for event in pubsub.get_events(None)`."""

    def receive(self, count: int) -> Arrival:
        while count > 0:
            for event in self._pubsub.get_events(None):
                pid, channel, payload = event
                count -= 1
        return Arrival(pid, channel, payload, monotonic_ns())


class EventsOverPsycopg2(Events):
    """The same as `Events` on a psycopg2 connection that is brought."""

    def connect(self, dsn: str) -> pgpubsub.PubSub:
        import psycopg2

        connection = psycopg2.connect(dsn)
        connection.autocommit = True
        return pgpubsub.PubSub(connection)


class Echo:
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
