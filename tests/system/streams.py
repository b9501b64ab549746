"""Those who append to streams and those who read them, and what has to be true of what was read.

Writers note what they have committed, and what they could see when they appended. Followers read in a thread, stop
whenever they like and go on from a token.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Literal, Self

import psycopg

import pgpubsub
import pgpubsub.streams
from pgpubsub import AsyncHub, Entry, Gap, Hub, NotLive, PubSubError, Undecodable
from pgpubsub.core.position import Start
from pgpubsub.testing import TemporaryServer

SEED = int(os.environ.get("PGPUBSUB_STREAMS_SEED", random.SystemRandom().randrange(10**9)))

SECONDS = float(os.environ.get("PGPUBSUB_STREAMS_SECONDS", "3"))
"""For which writers write, where they do so for a time."""

Admin = psycopg.Connection[Any]
Events = list[Entry[Any] | Undecodable | Gap]
Kind = Literal["Hub", "AsyncHub"]


def until(condition: Callable[[], object], what: object = "it", seconds: float = 60) -> None:
    """Wait for a condition, with a deadline. `what` has not come then; it may be a function."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, f"{what() if callable(what) else what} did not come"
        sleep(0.01)  # between two looks


def connect(dsn: str) -> Admin:
    return psycopg.connect(dsn, autocommit=True)


def install(dsn: str, *poll: str) -> None:
    """Install streams; some of which are not to wake anybody."""
    with connect(dsn) as admin:
        pgpubsub.streams.install(admin)
        for name in poll:
            pgpubsub.streams.create(admin, name, wake="poll")


@contextmanager
def database_with_streams(dsn: str, name: str) -> Iterator[str]:
    """A database of one's own on the server of `dsn`, with streams. Gives its connection string."""
    with connect(dsn) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {name}")
    its = psycopg.conninfo.make_conninfo(dsn, dbname=name)
    install(its)
    try:
        yield its
    finally:
        with connect(dsn) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def clear(dsn: str) -> None:
    """Undo what tests have done to a server."""
    with connect(dsn) as admin:
        admin.execute("ALTER SYSTEM RESET ALL")
        admin.execute("SELECT pg_reload_conf()")
        until(lambda: one(admin, "SHOW synchronous_standby_names") == "")
        for (name,) in admin.execute("SELECT gid FROM pg_prepared_xacts").fetchall():
            admin.execute(f"ROLLBACK PREPARED '{name}'")
        for (name,) in admin.execute("SELECT datname FROM pg_database WHERE oid > 16383").fetchall():
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        admin.execute("DROP SCHEMA IF EXISTS pgpubsub CASCADE")


def one(conn: Admin, query: str, *parameters: object) -> Any:
    """The one value that a query returns."""
    row = conn.execute(query, parameters).fetchone()
    assert row is not None
    return row[0]


def append(conn: Admin, stream: str, *payloads: str) -> list[int]:
    """Append in one transaction."""
    with conn.transaction():
        return [pgpubsub.append(conn, stream, payload) for payload in payloads]


def stored(conn: Admin, stream: str) -> list[str]:
    """The payloads in the table, in the order of their ids."""
    query = "SELECT payload FROM pgpubsub.entry WHERE stream = pgpubsub.stream_id(%s) ORDER BY id"
    return [payload for (payload,) in conn.execute(query, [stream])]


def xmax(conn: Admin) -> int:
    """The first transaction id that has not been completed, nor any behind it."""
    return int(one(conn, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"))


def payloads(events: Sequence[Any]) -> list[Any]:
    """Those of entries; a gap is its reason."""
    return [str(event.reason) if isinstance(event, Gap) else event.payload for event in events]


def run_as_owner(server: TemporaryServer, *command: str | Path) -> str:
    """Run a program as the user that the server runs as, in its directory."""
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:
        status = server.directory.stat()
        owner = {"user": status.st_uid, "group": status.st_gid, "extra_groups": []}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=server.directory, **owner)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return str(done.stdout)


def save(server: TemporaryServer) -> Path:
    """Copy its data as they are now, for `set_back`."""
    copy = server.directory / "copy"
    server.stop()
    run_as_owner(server, "rm", "-rf", copy)
    run_as_owner(server, "cp", "-a", server.directory / "data", copy)
    server.start()
    return copy


def set_back(server: TemporaryServer, copy: Path) -> None:
    """Put a copy in the place of its data."""
    server.stop()
    run_as_owner(server, "rm", "-rf", server.directory / "data")
    run_as_owner(server, "mv", copy, server.directory / "data")
    server.start()


def binaries_of(server: TemporaryServer) -> Path:
    """Where the server's programs are, for the user that it runs as."""
    copies = [path.parent for path in (server.directory / "installation").glob("**/bin/postgres")]
    return copies[0] if copies else server.binaries


# -- reading


class Follower(AbstractContextManager["Follower"]):
    """Reads a stream in a thread of its own, to be entered with `with`.

    Args:
        dsn: the hub's.
        stream: its name.
        kind: which hub.
        after: where to begin.
        stops: after so many events, or time-outs, at most, it closes its reader and goes on from its token with
            another; 0: never.
        hub: keywords for the hub.
        options: for `hub.stream`.
    """

    def __init__(
        self,
        dsn: str,
        stream: str,
        *,
        kind: Kind = "Hub",
        after: str | Start = pgpubsub.BEGINNING,
        stops: int = 0,
        seed: int = 0,
        hub: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.events: Events = []
        """What it has got."""
        self.token: str | Start = after
        self.tokens: list[str] = []
        """That of each entry."""
        self.readers = 0
        """That it has had."""
        self.error: BaseException | None = None
        self.hub: Hub | AsyncHub = (Hub if kind == "Hub" else AsyncHub)(dsn, **(hub or {}))
        self._stream: Any = self.hub.stream(stream, **options)
        self._stops = stops
        self._random = random.Random(seed)
        self._end = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._begun.wait(60), "it did not begin to read"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        if error is None and self.error is not None:
            raise self.error

    @property
    def payloads(self) -> list[Any]:
        """What it has got; a gap is its reason."""
        return payloads(self.events)

    @property
    def entries(self) -> list[Entry[Any]]:
        return [event for event in self.events if isinstance(event, Entry)]

    @property
    def gaps(self) -> list[str]:
        return [str(event.reason) for event in self.events if isinstance(event, Gap)]

    def until(self, count: int, seconds: float = 60) -> None:
        """Wait for so many events."""
        until(lambda: len(self.events) >= count or self.error, lambda: f"{len(self.events)}, not {count}", seconds)
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            if isinstance(self.hub, Hub):
                self._read(self.hub)
            else:
                asyncio.run(self._read_in_a_task(self.hub))
        except BaseException as error:
            self.error = error
            self._begun.set()

    def _read(self, hub: Hub) -> None:
        with hub:
            while not self._end.is_set():
                try:
                    with self._stream.read(after=self.token) as reader:
                        self._on_begun(reader)
                        for timeout in self._timeouts():
                            try:
                                event = reader.get(timeout=timeout)
                            except TimeoutError:
                                continue
                            self._take(event, reader.position)
                except NotLive:
                    pass

    async def _read_in_a_task(self, hub: AsyncHub) -> None:
        async with hub:
            while not self._end.is_set():
                try:
                    async with self._stream.read(after=self.token) as reader:
                        self._on_begun(reader)
                        for timeout in self._timeouts():
                            try:
                                event = await reader.get(timeout=timeout)
                            except TimeoutError:
                                continue
                            self._take(event, reader.position)
                except NotLive:
                    pass

    def _on_begun(self, reader: Any) -> None:
        self.readers += 1
        self.token = reader.position
        self._begun.set()

    def _timeouts(self) -> Iterator[float]:
        left = self._random.choice([1, self._random.randrange(20), self._stops]) + 1 if self._stops else None
        while not self._end.is_set() and left != 0:
            yield 0.05
            if left is not None:
                left -= 1

    def _take(self, event: Any, position: str) -> None:
        self.events.append(event)
        if isinstance(event, Entry):
            assert position == event.position
            self.tokens.append(position)
        self.token = position


def read_all(dsn: str, stream: str, after: str | Start = pgpubsub.BEGINNING, **options: Any) -> Events:
    """What is there at present."""
    with Hub(dsn) as hub, hub.stream(stream, **options).read(after=after, follow=False) as reader:
        return list(reader)


# -- writing


@dataclass(frozen=True)
class Fact:
    """An entry that is committed."""

    stream: str
    id: int
    saw: frozenset[int]
    """Entries of its stream that were committed, as far as is known, before it was appended."""


@dataclass
class Transaction:
    """What one transaction appends."""

    writer: Writer
    facts: dict[str, Fact] = field(default_factory=dict)

    def append(self, conn: Admin, stream: str, saw: Collection[int] = ()) -> None:
        payload = self.writer.new_payload()
        if self.writer.random.random() < 0.5:
            id = pgpubsub.append(conn, stream, payload, key=str(self.writer.number))
        else:
            id = int(one(conn, "SELECT pgpubsub.append(%s, %s, headers => '{}')", stream, payload))
        self.on_appended(stream, payload, id, saw)

    def on_appended(self, stream: str, payload: str, id: int, saw: Collection[int] = ()) -> None:
        assert payload not in self.facts
        self.facts[payload] = Fact(stream, id, frozenset(saw) | self.writer.before.get(stream, frozenset()))

    def on_committed(self) -> None:
        before = self.writer.before
        for payload, fact in self.facts.items():
            self.writer.committed[payload] = fact
        for stream in {fact.stream for fact in self.facts.values()}:
            ids = frozenset(fact.id for fact in self.facts.values() if fact.stream == stream)
            before[stream] = ids | before.get(stream, frozenset())
            if len(before[stream]) > 50:
                before[stream] = ids


class Undone(Exception):
    """To leave a transaction with."""


class Writer:
    """Appends in one transaction after the other, in all ways that there are."""

    def __init__(self, writers: Writers, number: int) -> None:
        self.number = number
        self.random = random.Random(writers.seed * 1000 + number)
        self.committed: dict[str, Fact] = {}
        self.undone: set[str] = set()
        """Payloads of what was certainly not committed."""
        self.before: dict[str, frozenset[int]] = {}
        """The latest that it has committed."""
        self.kinds: Counter[str] = Counter()
        self._writers = writers
        self._numbers = itertools.count(1)
        self._prepared: list[tuple[str, Transaction]] = []

    def new_payload(self) -> str:
        return f"{self.number}.{next(self._numbers)}"

    def run(self) -> None:
        with psycopg.connect(self._writers.dsn) as conn:
            while not self._writers.stop.is_set():
                kind = self.random.choice(self._writers.kinds)
                self.kinds[kind] += 1
                try:
                    getattr(self, f"_{kind}")(conn)
                except Undone:
                    pass
                self._writers.stop.wait(self.random.uniform(0, 0.02))
            while self._prepared:
                self._end_prepared(conn)

    # -- one transaction

    def _simple(self, conn: Admin) -> None:
        ours = Transaction(self)
        with self._commit(conn, ours):
            for _ in range(self.random.choice((1, 1, 3))):
                ours.append(conn, self._stream())

    def _slow(self, conn: Admin) -> None:
        """Has its transaction id long before its ids, and waits again before it commits."""
        ours = Transaction(self)
        with self._commit(conn, ours):
            if self.random.random() < 0.5:
                conn.execute("SELECT pg_current_xact_id()")
            else:
                ours.append(conn, self._stream())
            self._wait()
            ours.append(conn, self._stream())
            self._wait()

    def _seeing(self, conn: Admin) -> None:
        """Reads, perhaps after it has got its transaction id, and appends then."""
        ours = Transaction(self)
        with self._commit(conn, ours):
            if self.random.random() < 0.7:
                conn.execute("SELECT pg_current_xact_id()")
                self._wait()
            stream = self._stream()
            saw = one(
                conn,
                "SELECT array(SELECT id FROM pgpubsub.entry WHERE stream = pgpubsub.stream_id(%s)"
                " ORDER BY id DESC LIMIT 100)",
                stream,
            )
            ours.append(conn, stream, saw)

    def _undoing(self, conn: Admin) -> None:
        ours = Transaction(self)
        for _ in range(self.random.randrange(4)):
            ours.append(conn, self._stream())
        self._wait()
        conn.rollback()
        self.undone.update(ours.facts)

    def _savepoints(self, conn: Admin) -> None:
        """Some are released, some rolled back, one in the other."""
        ours = Transaction(self)
        many = self.random.random() < 0.1
        with self._commit(conn, ours):
            for _ in range(80 if many else 4):
                self._savepoint(conn, ours, 0 if many else 2)

    def _savepoint(self, conn: Admin, ours: Transaction, depth: int) -> None:
        inner = Transaction(self)
        undo = self.random.random() < 0.3
        try:
            with conn.transaction():
                inner.append(conn, self._stream())
                if depth:
                    self._savepoint(conn, inner, depth - 1)
                if undo:
                    raise Undone
        except Undone:
            self.undone.update(inner.facts)
        else:
            ours.facts |= inner.facts

    def _two_phase(self, conn: Admin) -> None:
        """Prepares, and ends what it has prepared before, perhaps much later."""
        if len(self._prepared) > 2 or (self._prepared and self.random.random() < 0.5):
            self._end_prepared(conn)
            return
        ours = Transaction(self)
        name = f"{self.number}-{next(self._numbers)}-{self._writers.seed}"
        for _ in range(2):
            ours.append(conn, self.random.choice(self._writers.poll))
        conn.execute(f"PREPARE TRANSACTION '{name}'")  # and it goes on with other transactions
        self._prepared.append((name, ours))

    def _end_prepared(self, conn: Admin) -> None:
        name, ours = self._prepared.pop(0)
        verb = self.random.choice(("COMMIT", "COMMIT", "ROLLBACK"))
        conn.autocommit = True
        conn.execute(f"{verb} PREPARED '{name}'")
        conn.autocommit = False
        if verb == "COMMIT":
            ours.on_committed()
        else:
            self.undone.update(ours.facts)

    def _hub(self, conn: Admin) -> None:
        ours = Transaction(self)
        stream, payload = self._stream(), self.new_payload()
        ours.on_appended(stream, payload, self._writers.hub.stream(stream).append(payload, key=str(self.number)))
        ours.on_committed()

    def _hub_many(self, conn: Admin) -> None:
        ours = Transaction(self)
        stream, texts = self._stream(), [self.new_payload() for _ in range(self.random.randrange(2, 20))]
        for text, id in zip(texts, self._writers.hub.stream(stream).append_many(texts), strict=True):
            ours.on_appended(stream, text, id)
        ours.on_committed()

    # -- parts of one

    def _stream(self) -> str:
        return self.random.choice(self._writers.streams)

    def _wait(self) -> None:
        self._writers.stop.wait(self.random.choice((0, 0.001, 0.01, 0.1)))

    def _commit(self, conn: Admin, ours: Transaction) -> AbstractContextManager[None]:
        return _Committing(conn, ours)


class _Committing(AbstractContextManager[None]):
    """Commits in the end, and notes it."""

    def __init__(self, conn: Admin, transaction: Transaction) -> None:
        self._conn = conn
        self._transaction = transaction

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._conn.commit()
            self._transaction.on_committed()


KINDS = ("simple", "slow", "seeing", "undoing", "savepoints", "two_phase", "hub", "hub_many")


class Writers(AbstractContextManager["Writers"]):
    """Many of them, each in a thread with a connection of its own, and a hub that all share.

    Args:
        dsn: the primary's, with streams installed.
        streams: to append to.
        poll: those of them that wake nobody.
        count: how many writers.
        kinds: of transactions, all by default.
        hub: keywords for the hub.
    """

    def __init__(
        self,
        dsn: str,
        streams: Sequence[str],
        poll: Sequence[str] = (),
        *,
        seed: int,
        count: int = 32,
        kinds: Sequence[str] = KINDS,
        hub: dict[str, Any] | None = None,
    ) -> None:
        self.dsn = dsn
        self.streams = streams
        self.poll = poll
        self.seed = seed
        self.kinds = [kind for kind in kinds if poll or kind != "two_phase"]
        self.stop = threading.Event()
        self.hub = Hub(dsn, **(hub or {}))
        self._writers = [Writer(self, number) for number in range(count)]
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=[writer], daemon=True) for writer in self._writers]

    def __enter__(self) -> Self:
        self.hub.__enter__()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish()
        self.hub.close()

    def write_for(self, seconds: float) -> None:
        """Let them write for a while, and come to an end."""
        self.stop.wait(seconds)
        self.finish()
        if self._errors:
            raise self._errors[0]

    def finish(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def committed(self, stream: str) -> dict[str, Fact]:
        """By payload."""
        return {
            payload: fact
            for writer in self._writers
            for payload, fact in writer.committed.items()
            if fact.stream == stream
        }

    @property
    def undone(self) -> set[str]:
        return {payload for writer in self._writers for payload in writer.undone}

    @property
    def told(self) -> Counter[str]:
        """How many transactions of each kind there were."""
        return sum((writer.kinds for writer in self._writers), Counter())

    def check(self, stream: str, events: Sequence[Any], admin: Admin) -> None:
        """All that was committed, once each, in an order that respects cause and effect."""
        assert not [event for event in events if not isinstance(event, Entry)]
        facts = self.committed(stream)
        assert set(stored(admin, stream)) == set(facts), "the writers are mistaken themselves"
        missing, strange = (
            set(facts) - {event.payload for event in events},
            Counter(payloads(events)) - Counter(facts.keys()),
        )
        assert (missing, dict(strange)) == (set(), {}), f"of {len(facts)}"
        places = {event.id: place for place, event in enumerate(events)}
        for event in events:
            fact = facts[event.payload]
            assert event.id == fact.id
            late = [id for id in fact.saw if places[id] > places[event.id]]
            assert not late, f"{event} came before what its appender had seen: {late}"

    def _run(self, writer: Writer) -> None:
        try:
            writer.run()
        except BaseException as error:
            if not isinstance(error, PubSubError | psycopg.Error) or not self.stop.is_set():
                error.add_note(f"writer {writer.number}")
            self._errors.append(error)
