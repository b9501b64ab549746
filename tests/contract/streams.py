"""Streams over every face, made alike, so that the same cases run for each of them; and what their tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Protocol, Self

import psycopg
from psycopg import sql

import pgpubsub.streams
from pgpubsub import AsyncHub, AsyncReader, AsyncStream, Entry, Gap, Hub
from pgpubsub.core.position import BEGINNING
from tests.contract.faces import PATIENCE, AnyHub, Covered, LoopInThread, Worker

__all__ = [
    "KINDS",
    "AnyReader",
    "AnyStream",
    "all_payloads",
    "backends",
    "begin_append",
    "begin_appends",
    "entries_of",
    "entries_stored",
    "everything",
    "following",
    "identifier",
    "install",
    "new_role",
    "open_stream",
    "payloads_of",
    "transactions_of",
    "unsettled_appends",
]

KINDS = ["Hub", "AsyncHub on asyncio"]
"""The faces. What tasks do among themselves is tested on uvloop too."""


class AnyReader(Protocol):
    """A reader."""

    @property
    def position(self) -> str | None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    def get(self, timeout: float | None = None) -> Any: ...
    def get_nowait(self) -> Any: ...
    def close(self) -> None: ...


class AnyStream(Protocol):
    """A stream."""

    @property
    def name(self) -> str: ...
    def append(
        self, value: Any, key: str | None = None, headers: Any = None, *, idempotency_key: str | None = None
    ) -> int: ...
    def append_many(self, values: Iterable[Any], *, key: Any = None, headers: Any = None) -> list[int]: ...
    def read(self, after: Any = BEGINNING, *, follow: bool = True) -> AnyReader: ...


class CoveredStream:
    """An `AsyncStream`, as if it were blocking."""

    def __init__(self, stream: AsyncStream[Any], loop: LoopInThread) -> None:
        self.stream = stream
        self.loop = loop

    def __repr__(self) -> str:
        return repr(self.stream)

    @property
    def name(self) -> str:
        return self.stream.name

    def append(
        self, value: Any, key: str | None = None, headers: Any = None, *, idempotency_key: str | None = None
    ) -> int:
        return self.loop.run(self.stream.append(value, key, headers, idempotency_key=idempotency_key))

    def append_many(self, values: Iterable[Any], *, key: Any = None, headers: Any = None) -> list[int]:
        return self.loop.run(self.stream.append_many(values, key=key, headers=headers))

    def read(self, after: Any = BEGINNING, *, follow: bool = True) -> CoveredReader:
        return CoveredReader(self.stream.read(after, follow=follow), self.loop)


class CoveredReader:
    """An `AsyncReader`, as if it were blocking."""

    def __init__(self, reader: AsyncReader[Any], loop: LoopInThread) -> None:
        self.reader = reader
        self.loop = loop

    def __enter__(self) -> Self:
        self.loop.run(self.reader.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.loop.run(self.reader.__aexit__(kind, error, traceback))

    def __repr__(self) -> str:
        return repr(self.reader)

    @property
    def position(self) -> str | None:
        return self.loop.call(lambda: self.reader.position)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        async def following() -> Any:
            async for event in self.reader:
                return event
            return None

        event = self.loop.run(following())
        if event is None:
            raise StopIteration
        return event

    def get(self, timeout: float | None = None) -> Any:
        return self.loop.run(self.reader.get(timeout))

    def get_nowait(self) -> Any:
        return self.loop.call(self.reader.get_nowait)

    def close(self) -> None:
        self.loop.call(self.reader.close)


def open_stream(hub: AnyHub, name: str, *args: Any, **options: Any) -> AnyStream:
    """A stream of a hub of whatever kind."""
    if isinstance(hub, Covered):
        return CoveredStream(hub.hub.stream(name, *args, **options), hub.loop)
    assert isinstance(hub, Hub)
    return hub.stream(name, *args, **options)


# -- reading


def everything(stream: AnyStream, after: Any = BEGINNING) -> list[Any]:
    """What there is at present. There may be no gap in it."""
    with stream.read(after, follow=False) as reader:
        found = reader.loop.run(_all(reader.reader)) if isinstance(reader, CoveredReader) else list(reader)
    assert not [event for event in found if isinstance(event, Gap)], found
    return found


async def _all(reader: AsyncReader[Any]) -> list[Any]:
    return [event async for event in reader]


def all_payloads(stream: AnyStream, after: Any = BEGINNING) -> list[Any]:
    """Those of what there is at present."""
    return [event.payload for event in everything(stream, after)]


def following(reader: AnyReader, count: int) -> list[Any]:
    """The payloads of the next entries."""
    found = []
    for _ in range(count):
        event = reader.get(PATIENCE)
        assert isinstance(event, Entry), event
        found.append(event.payload)
    return found


def payloads_of(admin: psycopg.Connection[Any], name: str, schema: str = "pgpubsub") -> list[Any]:
    """What a stream's table has, in the order of ids."""
    return [row["payload"] for row in entries_of(admin, name, schema)]


def entries_of(admin: psycopg.Connection[Any], name: str, schema: str = "pgpubsub") -> list[dict[str, Any]]:
    """A stream's entries as they are stored, in the order of ids."""
    of = identifier(schema).replace("%", "%%")
    query: Any = (
        "SELECT id, key, coalesce(to_json(payload), to_json(encode(payload_bytes, 'hex'))) AS payload, headers,"
        f" idempotency_key, xid::text::bigint AS xid FROM {of}.entry WHERE stream = {of}.stream_id(%s) ORDER BY id"
    )
    return admin.cursor(row_factory=psycopg.rows.dict_row).execute(query, [name]).fetchall()


def entries_stored(admin: psycopg.Connection[Any], name: str) -> int:
    """How many there are."""
    return len(entries_of(admin, name))


def transactions_of(admin: psycopg.Connection[Any], name: str) -> int:
    """In how many transactions a stream's entries were appended."""
    return len({row["xid"] for row in entries_of(admin, name)})


# -- appending


def unsettled_appends(hub: AnyHub | AsyncHub) -> int:
    """How many appends a hub was given, and has not told the outcome of."""
    if isinstance(hub, Covered):
        return hub.loop.call(unsettled_appends, hub.hub)
    assert isinstance(hub, Hub | AsyncHub)

    def count() -> int:
        cores = [one._core for one in hub._streams._appending.values()]
        return sum(core._owed for core in cores)

    async def counted() -> int:
        return count()

    return hub._running_thread().call(counted) if isinstance(hub, Hub) else count()


def begin_append(hub: AnyHub, call: Callable[[], object]) -> Worker:
    """Make a call in another thread, and go on when the hub has it."""
    from tests.contract.sending import wait_until

    before = unsettled_appends(hub)
    worker = Worker(call)
    wait_until(lambda: unsettled_appends(hub) > before)
    return worker


def begin_appends(hub: AnyHub, stream: AnyStream, values: Iterable[Any], **keywords: Any) -> list[Worker]:
    """Append, in this order, what cannot be appended at present."""

    def call(value: Any) -> Callable[[], object]:
        return lambda: stream.append(value, **keywords)

    return [begin_append(hub, call(value)) for value in values]


# -- the server


def install(dsn: str, schema: str = "pgpubsub") -> None:
    """Install streams, over a connection of its own."""
    with psycopg.connect(dsn) as connection:
        pgpubsub.streams.install(connection, schema)


def identifier(name: str) -> str:
    """A name as SQL has it."""
    return sql.Identifier(name).as_string()


def new_role(admin: psycopg.Connection[Any], name: str, *grants: str) -> None:
    """A role that may log in and has these rights; {} stands for its name."""
    admin.execute(f"CREATE ROLE {identifier(name)} LOGIN")
    for grant in grants:
        admin.execute(f"GRANT {grant} TO {identifier(name)}")


def backends(admin: psycopg.Connection[Any], role: str) -> list[int]:
    """The server processes for one role (listen, notify, append, read) of this process' hubs."""
    name = f"pgpubsub {role} {os.getpid()}@%"
    query = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE %s ORDER BY backend_start"
    return [row[0] for row in admin.execute(query, [name]).fetchall()]
