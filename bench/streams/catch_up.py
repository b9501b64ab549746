"""Who reads all entries of a stream, from the first to the last, and looks at each payload."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import cache, partial
from time import monotonic_ns, process_time_ns
from typing import Any, TypeAlias

import psycopg

import pgpubsub
from bench.ground import QUEUE, Ground, database
from bench.streams.places import COLUMNS, fill, with_streams
from bench.turns import Cost
from pgpubsub.core.position import stream_id

__all__ = ["Read", "copy_raw", "copy_rows", "read", "read_async", "read_blocking", "select"]

Read: TypeAlias = Callable[[str], tuple[int, int]]
"""Reads everything by a DSN; returns the number of entries and of characters in their payloads."""

TYPES = ("int8", "text", "text", "bytea", "jsonb", "timestamptz")
PAGE = 2000


class Library:
    """A database with a long stream."""

    def __init__(self, server: str, count: int) -> None:
        self._server = server
        self._count = count
        self._stack = ExitStack()

    def start(self) -> None:
        """Fill it."""
        self.dsn = self._stack.enter_context(database(self._server, "catch_up"))
        with_streams(self.dsn)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            fill(connection, QUEUE, self._count)

    def close(self) -> None:
        """Drop it."""
        self._stack.close()


@cache
def _library(server: str, count: int) -> Callable[[], Library]:
    return partial(Library, server, count)


def read(make: Callable[[], Read], ground: Ground) -> list[Cost]:
    """What an entry costs one contestant. To connect is part of it."""
    count = ground.effort.stored
    library = ground.keep([_library(ground.dsn, count)])[0]
    reading = make()
    gc.collect()
    cpu_before, start = process_time_ns(), monotonic_ns()
    found = reading(library.dsn)
    wall, cpu = monotonic_ns() - start, process_time_ns() - cpu_before
    assert found == (count, 100 * count), found
    return [Cost(wall / count, cpu / count)]


def read_async(dsn: str) -> tuple[int, int]:
    """`async for entry in entries`."""

    async def main() -> tuple[int, int]:
        count = length = 0
        async with pgpubsub.AsyncHub(dsn) as hub, hub.stream(QUEUE).read(follow=False) as entries:
            async for entry in entries:
                assert isinstance(entry, pgpubsub.Entry), entry
                count += 1
                length += len(entry.payload)
        return count, length

    return asyncio.run(main())


def read_blocking(dsn: str) -> tuple[int, int]:
    """`for entry in entries`."""
    count = length = 0
    with pgpubsub.Hub(dsn) as hub, hub.stream(QUEUE).read(follow=False) as entries:
        for entry in entries:
            assert isinstance(entry, pgpubsub.Entry), entry
            count += 1
            length += len(entry.payload)
    return count, length


COPY = f"COPY (SELECT {COLUMNS} FROM pgpubsub.entry WHERE stream = {{}} ORDER BY id) TO STDOUT"


def copy_rows(dsn: str, *, binary: bool = False) -> tuple[int, int]:
    """`for row in copy.rows()` (psycopg's manual, "Reading data row-by-row")."""
    statement = _copy(f"{COPY} (FORMAT binary)" if binary else COPY)
    with psycopg.connect(dsn) as connection, connection.cursor().copy(statement) as copy:
        copy.set_types(TYPES)
        return _look_at(copy.rows())


def copy_raw(dsn: str) -> tuple[int, int]:
    """`for data in copy`: each is a line, which nobody takes apart."""
    count = 0
    with psycopg.connect(dsn) as connection, connection.cursor().copy(_copy(COPY)) as copy:
        for _ in copy:
            count += 1
    return count, 100 * count


def select(dsn: str, *, binary: bool = False) -> tuple[int, int]:
    """Page by page, in the order of ids."""
    statement = (
        f"SELECT {COLUMNS} FROM pgpubsub.entry WHERE stream = %s AND id > %s ORDER BY id LIMIT {PAGE}"
    ).encode()
    count = length = last = 0
    with psycopg.connect(dsn, autocommit=True) as connection, connection.cursor(binary=binary) as cursor:
        while True:
            rows = cursor.execute(statement, (stream_id(QUEUE), last)).fetchall()
            its_count, its_length = _look_at(rows)
            count += its_count
            length += its_length
            if its_count < PAGE:
                return count, length
            last = rows[-1][0]


def _copy(statement: str) -> bytes:
    return statement.format(stream_id(QUEUE)).encode()


def _look_at(rows: Iterable[Any]) -> tuple[int, int]:
    count = length = 0
    for row in rows:
        count += 1
        length += len(row[2])
    return count, length
