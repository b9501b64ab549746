"""The load on the classic interface, and on triggers: a PubSub and a NotificationHandler that stay, others that come
and go with either driver, and a table whose changes are told to a channel and to a stream."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import psycopg
import psycopg2

import pgpubsub
import pgpubsub.streams
import pgpubsub.triggers
from pgpubsub import Change, Channel, ConnectionLost, Gap, Hub, NotificationHandler, PubSub, SendUncertain
from tests.soak.channels import take
from tests.soak.stage import Stage

__all__ = ["Classic"]

CLASSIC, HANDLED = "soak classic", "soak handled"

ORDERS = Channel("soak orders", Change[dict[str, Any]])

CHANGES = "soak changes"
"""The stream."""

KEPT = 200


class Classic:
    """See the module.

    Args:
        stage: where.
        hub: that sends, and gets what triggers tell.
    """

    def __init__(self, stage: Stage, hub: Hub) -> None:
        self._stage = stage
        self._hub = hub
        new = stage.accounts.source
        self._classic, self._handled, self._rows = new("to PubSub"), new("to NotificationHandler"), new("rows")

    def install(self, conn: psycopg.Connection[Any]) -> None:
        """The table and its triggers."""
        conn.execute("CREATE TABLE soak_order (id int PRIMARY KEY, state text)")
        pgpubsub.streams.create(conn, CHANGES, max_entries=KEPT)
        pgpubsub.triggers.install(conn, "soak_order", to=ORDERS, on=["insert", "update"])
        pgpubsub.triggers.install(conn, "soak_order", to=pgpubsub.triggers.stream(CHANGES), name="log")

    def receive(self) -> None:
        """Begin to, in threads."""
        for work in (self._follow, self._handle, self._come_and_go, self._follow_rows, self._follow_stream):
            self._stage.receive(work)

    def send(self) -> None:
        """Begin to."""
        for work in (self._notify, self._write):
            self._stage.send(work)

    def _follow(self) -> None:
        cursor = self._stage.accounts.cursor("PubSub", self._classic, from_now=True)
        with pgpubsub.connect(self._stage.dsn) as pubsub:
            pubsub.listen(CLASSIC)
            for event in pubsub.events(select_timeout=0.5, yield_timeouts=True, yield_gaps=True):
                if isinstance(event, Gap):
                    self._stage.done["gaps, PubSub"] += 1
                    cursor.gap()
                elif event is not None:
                    self._stage.done["PubSub"] += 1
                    cursor.came(event.payload)
                if self._stage.over.is_set():
                    return

    def _handle(self) -> None:
        """A handler is told of no gaps: its PubSub counts them."""
        cursor = self._stage.accounts.cursor("NotificationHandler", self._handled, from_now=True)
        gaps = 0

        def call(news: dict[str, Any] | None) -> None:
            nonlocal gaps
            if pubsub.gaps > gaps:
                gaps = pubsub.gaps
                cursor.gap()
            if news is not None:
                self._stage.done["NotificationHandler"] += 1
                cursor.came(news["extra"])

        with pgpubsub.connect(self._stage.dsn) as pubsub:
            handler = pubsub.notification_handler(HANDLED, call, timeout=0)
            while not self._stage.over.wait(0.05):
                handler()  # handles what has come

    def _come_and_go(self) -> None:
        """With a connection of either driver, and a handler that is told to stop."""
        drivers: list[Callable[[], PubSub]] = [
            lambda: pgpubsub.connect(self._stage.dsn),
            lambda: PubSub(psycopg.connect(self._stage.dsn, autocommit=True)),
            self._by_psycopg2,
        ]
        for number in count():
            if self._stage.over.wait(1):
                return
            try:
                with drivers[number % len(drivers)]() as pubsub:
                    handler = NotificationHandler(pubsub, f"soak handler {number}", lambda news: None, timeout=5)
                    handler.listen()
                    handler.notify(payload="here")
                    handler.notify(stop=True)
                    handler()
                    pubsub.listen("soak passing")
                    pubsub.notify("soak passing", "here")
                    if pubsub.get_event(5) is not None:
                        self._stage.done["PubSub, passing"] += 1
            except (ConnectionLost, SendUncertain):
                self._stage.done["PubSub, passing, lost"] += 1

    def _by_psycopg2(self) -> PubSub:
        conn = psycopg2.connect(self._stage.dsn)
        conn.autocommit = True
        return PubSub(conn)

    def _follow_rows(self) -> None:
        """As what they are."""
        cursor = self._stage.accounts.cursor("trigger to a channel", self._rows, from_now=True)
        with self._hub.subscribe(ORDERS, capacity=5000) as events:
            while not self._stage.over.is_set():
                event = take(events)
                if isinstance(event, Gap):
                    cursor.gap()
                elif event is not None:
                    self._stage.done["trigger to a channel"] += 1
                    cursor.came(event.payload.row["state"])

    def _follow_stream(self) -> None:
        cursor = self._stage.accounts.cursor("trigger to a stream", self._rows)
        with self._hub.stream(CHANGES, Change[dict[str, Any]]).read() as entries:
            while not self._stage.over.is_set():
                event = take(entries)
                if isinstance(event, Gap):
                    self._stage.accounts.complain(f"trigger to a stream: {event}")
                elif event is not None and event.payload.row is not None:
                    self._stage.done["trigger to a stream"] += 1
                    cursor.came(event.payload.row["state"])

    def _notify(self) -> None:
        for _ in self._stage.times(0.25):
            for source, channel in ((self._classic, CLASSIC), (self._handled, HANDLED)):
                text = source.next()
                self._stage.attempt(source, partial(self._hub.notify, channel, text))

    def _write(self) -> None:
        with self._stage.connect() as conn:
            for _ in self._stage.times(0.2):
                upsert = "INSERT INTO soak_order VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET state = excluded.state"
                text = self._rows.next()
                conn.execute(upsert, [self._rows.last % 100, text])
                self._rows.committed()
                self._stage.done["rows written"] += 1
