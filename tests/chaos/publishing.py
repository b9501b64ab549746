"""Who sends and appends: `python -m tests.chaos.publishing`, with its settings as JSON.

For each line on its input, a number, each of its threads sends so many messages that are known to be committed, and the
journal says when all have. A journal's lines:

    begin NUMBER PUBLISHER KIND PLACE    a message is on its way to a channel or a stream (KIND)
    end NUMBER PUBLISHER OUTCOME         committed, not or uncertain
    done                                 the line of the input is done
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import count, repeat
from random import Random
from threading import Event
from time import monotonic
from typing import Any

import psycopg

import pgpubsub
from pgpubsub import Hub, PubSubError, SendTimeout, ServerRefused
from tests.chaos.gateway import Poster
from tests.chaos.texts import CHANNELS, SOMETIMES, STREAMS, text
from tests.system.processes import Journal

__all__ = ["Publishing"]

NOT_SENT = (SendTimeout, ServerRefused)

PAUSE = 0.01
"""Seconds between two messages of a thread."""


@dataclass(frozen=True)
class Publishing:
    """What it does.

    Args:
        dsn: of the database.
        journal: where it notes what it does.
        seed: of its choices.
        port: of a gateway, to which it posts too.
    """

    dsn: str
    journal: str
    seed: int
    port: int

    def run(self) -> None:
        journal, hub = Journal(self.journal), Hub(self.dsn)
        numbers = count(1)
        publishers: list[Publisher] = [
            kind(f"{kind.__name__} {self.seed}.{next(numbers)}", Random(f"{self.seed} {number}"), journal, self, hub)
            for number, kind in enumerate([Caller, Caller, Batches, Transactions, Appender, Appends, Posts])
        ]
        with closing(hub), ThreadPoolExecutor(len(publishers)) as pool:  # not entered: perhaps there is no server
            journal.write("ready", monotonic())
            for line in sys.stdin:
                list(pool.map(Publisher.publish, publishers, repeat(int(line))))
                journal.write("done", monotonic())


class Publisher:
    """A thread of it."""

    def __init__(self, name: str, chance: Random, journal: Journal, settings: Publishing, hub: Hub) -> None:
        self.chance = chance
        self.settings = settings
        self.hub = hub
        self._name = name
        self._journal = journal
        self._numbers = count(1)

    def publish(self, times: int) -> None:
        """Until so many are committed."""
        done = 0
        while done < times:
            done += self.turn()
            Event().wait(PAUSE)

    def turn(self) -> int:
        """Send something. How many are committed?"""
        raise NotImplementedError

    def begin(self, kind: str, place: str) -> tuple[int, str]:
        """A message: its number, and its text."""
        number = next(self._numbers)
        self._journal.write("begin", monotonic(), self._name, number, kind, place)
        return number, text(self._name, number)

    def attempt(self, numbers: Sequence[int], send: Callable[[], object]) -> int:
        """Send them. How many are committed?"""
        try:
            send()
        except NOT_SENT:
            return self.end(numbers, "not")
        except (PubSubError, psycopg.Error, OSError):
            return self.end(numbers, "uncertain")
        return self.end(numbers, "committed")

    def end(self, numbers: Sequence[int], outcome: str) -> int:
        """Note what became of them. How many are committed?"""
        for number in numbers:
            self._journal.write("end", monotonic(), self._name, number, outcome)
        return len(numbers) if outcome == "committed" else 0


class Caller(Publisher):
    """Calls `hub.notify`."""

    def turn(self) -> int:
        channel = self.chance.choice((*CHANNELS, SOMETIMES))
        number, message = self.begin("channel", channel)
        return self.attempt([number], lambda: self.hub.notify(channel, message))


class Batches(Publisher):
    """Calls `hub.notify_many`."""

    def turn(self) -> int:
        pairs, numbers = [], []
        for _ in range(self.chance.randrange(1, 6)):
            channel = self.chance.choice(CHANNELS)
            number, message = self.begin("channel", channel)
            numbers.append(number)
            pairs.append((channel, message))
        return self.attempt(numbers, lambda: self.hub.notify_many(pairs))


class Transactions(Publisher):
    """Sends in transactions of its own, and rolls some back."""

    _conn: psycopg.Connection[Any] | None = None

    def turn(self) -> int:
        some = [self.one() for _ in range(self.chance.randrange(1, 4))]
        if self.chance.random() < 0.15:
            self.roll_back(some)
            return 0
        numbers = [number for number, _, _ in some]
        try:
            self.connection()
        except (PubSubError, psycopg.Error):
            return self.end(numbers, "not")
        return self.attempt(numbers, lambda: self.commit(some))

    def one(self) -> tuple[int, str, str]:
        channel = self.chance.choice(CHANNELS)
        number, message = self.begin("channel", channel)
        return number, channel, message

    def execute(self, conn: psycopg.Connection[Any], channel: str, message: str) -> None:
        pgpubsub.notify(conn, channel, message)

    def commit(self, some: Sequence[tuple[int, str, str]], *, force_rollback: bool = False) -> None:
        conn = self.connection()
        with conn.transaction(force_rollback=force_rollback):
            for _, place, message in some:
                self.execute(conn, place, message)

    def roll_back(self, some: Sequence[tuple[int, str, str]]) -> None:
        try:
            self.commit(some, force_rollback=True)
        except (PubSubError, psycopg.Error):
            pass  # nor then
        self.end([number for number, _, _ in some], "not")

    def connection(self) -> psycopg.Connection[Any]:
        if self._conn is None or self._conn.closed or self._conn.broken:
            self._conn = psycopg.connect(self.settings.dsn, autocommit=True, connect_timeout=3, tcp_user_timeout=4000)
        return self._conn


class Appends(Transactions):
    """Appends in transactions of its own, and rolls some back."""

    def one(self) -> tuple[int, str, str]:
        stream = self.chance.choice(STREAMS)
        number, message = self.begin("stream", stream)
        return number, stream, message

    def execute(self, conn: psycopg.Connection[Any], channel: str, message: str) -> None:
        pgpubsub.append(conn, channel, message)


class Appender(Publisher):
    """Calls `append`, until it is stored for sure."""

    def turn(self) -> int:
        stream = self.chance.choice(STREAMS)
        number, message = self.begin("stream", stream)
        while True:
            try:
                self.append(stream, message, number)
            except (PubSubError, OSError):
                Event().wait(PAUSE)
            else:
                return self.end([number], "committed")

    def append(self, stream: str, message: str, number: int) -> None:
        self.hub.stream(stream).append(message, idempotency_key=f"{self._name} {number}")


class Posts(Appender):
    """Posts to the gateway: to a channel once, to a stream until it is stored."""

    _poster: Poster | None = None

    @property
    def poster(self) -> Poster:
        self._poster = self._poster or Poster(self.settings.port)
        return self._poster

    def turn(self) -> int:
        if self.chance.random() < 0.5:
            return super().turn()
        channel = self.chance.choice(CHANNELS)
        number, message = self.begin("channel", channel)
        return self.attempt([number], lambda: self.poster.post("channels", channel, message))

    def append(self, stream: str, message: str, number: int) -> None:
        self.poster.post("streams", stream, message, key=f"{self._name} {number}")


if __name__ == "__main__":
    for name in ("pgpubsub", "psycopg"):
        logging.getLogger(name).setLevel(logging.ERROR)  # below that they tell of faults, as they should
    Publishing(**json.loads(sys.argv[1])).run()
