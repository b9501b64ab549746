"""Programs that append to a stream and consume it in groups, to be killed and paused, and what they leave behind.

Each runs in a process of its own: `python -m tests.system.groups` with its settings as JSON. What an entry's handling
came to stands in the table `handled` or in `effects`, and in a journal, which no kill takes away.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from threading import Event, get_ident
from time import time
from typing import Any, NamedTuple

import psycopg

import pgpubsub
from pgpubsub import AsyncHub, Hub, LeaseLost, PubSubError, SendUncertain
from pgpubsub.groups import membership
from pgpubsub.streams import source
from tests.system.processes import Journal, Process
from tests.system.streams import until

__all__ = ["TABLES", "Consuming", "Line", "Program", "Writing"]

TABLES = """
DROP TABLE IF EXISTS handled, effects, total, written;
CREATE TABLE handled (n bigserial, consumer text, id bigint, attempt int, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE effects (n bigserial, consumer text, id bigint, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE total (key text PRIMARY KEY, sum bigint);
CREATE TABLE written (id bigint);
"""
"""What plain consumers do, what others do in their transactions, and what writers note in theirs. Nothing is unique, so
that what happens twice is there twice."""

ADD = """
INSERT INTO total VALUES (coalesce(%s, ''), %s) ON CONFLICT (key) DO UPDATE SET sum = total.sum + excluded.sum
"""

OUTAGE = suppress(pgpubsub.ConnectionFailed, pgpubsub.ConnectionLost, pgpubsub.NotLive)

ANSWER = 3.0
"""Seconds after which a consumer gives up a server that does not answer."""


class Injected(Exception):
    """What handlers raise at random."""


class Notes(Journal):
    """What becomes of entries."""

    def note(self, what: str, ids: Sequence[int] = (), attempt: int = 0) -> None:
        self.write(time(), what, list(ids), attempt)


class Line(NamedTuple):
    """One of a journal."""

    at: float
    what: str
    """begin, then one of acknowledged, failed, lost, over (in a transaction, however it ended), by `process` nothing;
    gap; stopped: the consumer ended by itself. Writers: committed, and done. And the gates that were come to."""
    ids: list[int]
    attempt: int
    """0 for batches."""


# -- in a process of its own


@dataclass(frozen=True)
class Consuming:
    """What a consumer does.

    Args:
        dsn: of its hub.
        own: where it notes what it has handled, and has connections of its own.
        kind: plain, transaction, own_transaction (on a connection of its own), tasks or tasks_transaction (with an
            AsyncHub), or process.
        gate: where handlers wait for a byte: "after" the effect, or when they have "acknowledged" it.
        failing: how likely a handler is to fail.
        poison: the payload that ends the process.
    """

    dsn: str
    own: str
    journal: str
    group: str
    kind: str
    seed: int = 0
    batch: int | None = None
    lease: float = 1.5
    attempts: int = 1000
    backoff: float = 0.05
    follow: bool = True
    concurrency: int = 1
    gate: str = ""
    failing: float = 0.0
    poison: str = ""
    stream: str = "s"

    def run(self) -> None:
        consumer = Consumer(self)
        with closing(consumer):
            consumer.run()


class Consumer:
    """Consumes until it is told to stop by SIGTERM, or to the end."""

    def __init__(self, settings: Consuming) -> None:
        self._settings = settings
        self._random = random.Random(settings.seed)
        self._journal = Notes(settings.journal)
        self._name = str(os.getpid())
        self._own: dict[int, psycopg.Connection[Any]] = {}  # by thread
        self._stopping = Event()
        self._consumer: Any = None
        self._attempt = 0  # 0: of a batch
        self._outcome = ""

    def close(self) -> None:
        for conn in self._own.values():
            conn.close()

    def run(self) -> None:
        membership.ANSWER = source.ANSWER = ANSWER
        settings = self._settings
        options: Any = {name: getattr(settings, name) for name in ("batch", "lease", "attempts", "backoff", "follow")}
        options["on_gap"] = lambda gap: self._journal.note("gap")
        signal.signal(signal.SIGTERM, signal.SIG_DFL if settings.kind.endswith("process") else self._stop)
        while not self._stopping.is_set():
            with OUTAGE:
                if settings.kind.startswith("tasks"):
                    asyncio.run(self._run_in_a_task(options))
                else:
                    self._run_in_threads(options)
                return
            self._stopping.wait(0.05)

    def _run_in_threads(self, options: Any) -> None:
        settings = self._settings
        with Hub(settings.dsn) as hub:
            stream: Any = hub.stream(settings.stream)
            if settings.kind == "process":
                stream.process(settings.group, self._handler, concurrency=settings.concurrency, **options)
            else:
                self._consume(stream.consume(settings.group, **options))

    def _stop(self, *_: object) -> None:
        self._stopping.set()
        if self._consumer is not None:
            self._consumer.close()

    def _consume(self, consumer: Any) -> None:
        with consumer:
            self._consumer = consumer
            if self._stopping.is_set():  # while it was entered
                return
            with self._noting_end():
                for delivery in consumer:
                    self._take(delivery)
                    if self._stopping.is_set():
                        break

    @contextmanager
    def _noting_end(self) -> Iterator[None]:
        try:
            yield
        except PubSubError as error:
            if not self._stopping.is_set():
                self._journal.note(f"stopped: {error!r}")
            raise

    async def _run_in_a_task(self, options: Any) -> None:
        async with AsyncHub(self._settings.dsn) as hub:
            stream: Any = hub.stream(self._settings.stream)
            if self._settings.kind == "tasks_process":
                concurrency = self._settings.concurrency
                await stream.process(self._settings.group, self._handler, concurrency=concurrency, **options)
                return
            consumer = stream.consume(self._settings.group, **options)
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop)
            async with consumer:
                self._consumer = consumer
                if self._stopping.is_set():  # while it was entered
                    return
                with self._noting_end():
                    async for delivery in consumer:
                        entries = self._begin(delivery)
                        await getattr(self, f"_{self._settings.kind}")(delivery, entries)
                        self._journal.note(self._outcome, [entry.id for entry in entries])
                        if self._stopping.is_set():
                            break

    def _take(self, delivery: Any) -> None:
        entries = self._begin(delivery)
        getattr(self, f"_{self._settings.kind}")(delivery, entries)
        self._journal.note(self._outcome, [entry.id for entry in entries])

    def _begin(self, delivery: Any) -> Sequence[Any]:
        alone = self._settings.batch is None
        entries = [delivery.entry] if alone else list(delivery)
        self._attempt = delivery.attempt if alone else 0
        self._journal.note("begin", [entry.id for entry in entries], self._attempt)
        self._outcome = "failed"
        return entries

    # -- kinds

    def _plain(self, delivery: Any, entries: Sequence[Any]) -> None:
        with delivery:
            self._note(entries)
            self._gate("after")
            self._fail_at_times()
            with self._noting_loss():
                delivery.acknowledge()
            self._outcome = "acknowledged"

    def _transaction(self, delivery: Any, entries: Sequence[Any]) -> None:
        with delivery, delivery.transaction() as conn:
            self._affect(conn, entries)
            self._gate("after")
            self._fail_at_times()
        self._outcome = "over"

    def _own_connection(self) -> psycopg.Connection[Any]:
        conn = self._own.get(get_ident())
        if conn is None or conn.closed:
            self._own[get_ident()] = conn = psycopg.connect(self._settings.own, autocommit=True)
        return conn

    def _own_transaction(self, delivery: Any, entries: Sequence[Any]) -> None:
        with delivery:
            conn = self._own_connection()
            first = self._settings.gate == "" and self._random.random() < 0.5
            with conn.transaction():
                if first:
                    delivery.acknowledge(conn)
                self._affect(conn, entries)
                self._gate("after")
                if not first:
                    delivery.acknowledge(conn)
                self._gate("acknowledged")
                self._fail_at_times()
        self._outcome = "over"

    async def _tasks(self, delivery: Any, entries: Sequence[Any]) -> None:
        async with delivery:
            self._note(entries)
            self._fail_at_times()
            with self._noting_loss():
                await delivery.acknowledge()
            self._outcome = "acknowledged"

    async def _tasks_transaction(self, delivery: Any, entries: Sequence[Any]) -> None:
        async with delivery, delivery.transaction() as conn:
            for query, parameters in self._effects(entries):
                await conn.execute(query, parameters)
            self._fail_at_times()
        self._outcome = "over"

    def _handler(self, given: Any) -> None:
        entries = given if isinstance(given, list) else [given]
        self._journal.note("begin", [entry.id for entry in entries])
        for entry in entries:
            if entry.payload == self._settings.poison:
                os._exit(1)
        self._note(entries)
        self._gate("after")
        self._fail_at_times()

    # -- what they do

    @contextmanager
    def _noting_loss(self) -> Iterator[None]:
        try:
            yield
        except LeaseLost:
            self._outcome = "lost"
            raise

    def _note(self, entries: Sequence[Any]) -> None:
        for entry in entries:
            self._own_connection().execute(
                "INSERT INTO handled (consumer, id, attempt) VALUES (%s, %s, %s)", [self._name, entry.id, self._attempt]
            )

    def _affect(self, conn: psycopg.Connection[Any], entries: Sequence[Any]) -> None:
        for query, parameters in self._effects(entries):
            conn.execute(query, parameters)

    def _effects(self, entries: Sequence[Any]) -> Iterator[tuple[Any, Sequence[Any]]]:
        for entry in entries:
            yield "INSERT INTO effects (consumer, id) VALUES (%s, %s)", [self._name, entry.id]
            if not self._settings.gate:  # whoever is paused there must not be in the way of others
                yield ADD, [entry.key, len(entry.payload)]

    def _fail_at_times(self) -> None:
        if self._random.random() < self._settings.failing:
            raise Injected("by chance")

    def _gate(self, place: str) -> None:
        if self._settings.gate == place:
            self._journal.note(place)
            os.read(0, 1)  # which signals interrupt, whoever else reads there


@dataclass(frozen=True)
class Writing:
    """What a writer does: append as many entries as it is told on its input, and say that it is done."""

    dsn: str
    journal: str
    name: str
    seed: int
    stream: str = "s"
    group: str = ""

    def run(self) -> None:
        Writer(self).run()


class Writer:
    """Appends in transactions of its own, some of which are rolled back, and by a hub.

    The entries of a key are appended one after the other. What is not known to have ended may still do so: then it goes
    on with other keys.
    """

    def __init__(self, settings: Writing) -> None:
        self._settings = settings
        self._random = random.Random(settings.seed)
        self._journal = Notes(settings.journal)
        self._numbers = count()
        self._epoch = 0
        self._conn: psycopg.Connection[Any] | None = None

    def run(self) -> None:
        with closing(Hub(self._settings.dsn)) as hub:  # not entered: there may be no server at present
            stream = hub.stream(self._settings.stream)
            for line in sys.stdin:
                done = 0
                while done < int(line):
                    ways = [self._in_transaction, self._in_transaction, self._by_hub, self._many_by_hub]
                    try:
                        done += self._random.choice(ways)(stream)
                    except (psycopg.Error, PubSubError):
                        self._epoch += 1
                        Event().wait(0.02)  # before it tries again
                self._journal.note("done")

    def _payload(self) -> str:
        return f"{self._settings.name} {next(self._numbers)}"

    def _key(self) -> str | None:
        number = self._random.randrange(6)
        return f"{self._settings.name} {self._epoch} {number}" if number else None

    def _in_transaction(self, stream: Any) -> int:
        if self._conn is None or self._conn.closed:
            self._conn = psycopg.connect(self._settings.dsn)
        conn = self._conn
        ids = []
        with conn.transaction(force_rollback=self._random.random() < 0.2) as transaction:
            for _ in range(self._random.randrange(1, 8)):
                id = pgpubsub.append(conn, self._settings.stream, self._payload(), self._key())
                conn.execute("INSERT INTO written VALUES (%s)", [id])
                ids.append(id)
            Event().wait(self._random.choice((0, 0, 0, 0.01, 0.1)))  # others commit meanwhile
        if transaction.force_rollback:
            return 0
        self._journal.note("committed", ids)
        return len(ids)

    def _by_hub(self, stream: Any) -> int:
        payload, key = self._payload(), self._key()
        while True:
            try:
                self._journal.note("committed", [stream.append(payload, key, idempotency_key=payload)])
                return 1
            except SendUncertain:
                pass

    def _many_by_hub(self, stream: Any) -> int:
        key = self._key()
        ids = stream.append_many([self._payload() for _ in range(self._random.randrange(1, 20))], key=key)
        self._journal.note("committed", ids)
        return len(ids)


# -- seen from outside


class Program(Process):
    """One of these in a process.

    Args:
        settings: for it; the journal is named here.
        directory: for its journal and what it prints as errors.
    """

    def __init__(self, make: Callable[[str], Consuming | Writing], directory: Path) -> None:
        path = self.new_path(directory)
        self.settings = make(f"{path}.journal")
        command = [sys.executable, "-W", "error", "-m", "tests.system.groups", type(self.settings).__name__]
        super().__init__([*command, json.dumps(asdict(self.settings))], path)
        self._lines: list[Line] = []
        self._entries: Counter[str] = Counter()

    @property
    def name(self) -> str:
        """Its member's."""
        return f"{socket.gethostname()} {self.process.pid}"

    @property
    def journal(self) -> list[Line]:
        """All of it, up to now."""
        for fields in self.new_lines():
            self._lines.append(line := Line(*fields))
            self._entries[line.what] += len(line.ids)
        return self._lines

    def entries(self, what: str) -> int:
        """How many of them stand in lines of this kind."""
        assert self.journal is self._lines
        return self._entries[what]

    def begun(self, what: str = "begin") -> list[Line]:
        return [line for line in self.journal if line.what == what]

    def until(self, what: str, times: int = 1, seconds: float = 30) -> None:
        """Wait until that stands in its journal."""
        until(lambda: len(self.begun(what)) >= times, lambda: f"{what} of {self.journal}, {self.errors}", seconds)


def main(kind: str, settings: str) -> None:
    for name in ("pgpubsub", "psycopg"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they warn of faults, as they should
    {"Consuming": Consuming, "Writing": Writing}[kind](**json.loads(settings)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
