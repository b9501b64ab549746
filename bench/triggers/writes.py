"""How long writes take in a table of which changes are told, in each contestant's own."""

from __future__ import annotations

import faulthandler
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic, monotonic_ns
from typing import Any, Self

import psycopg

from bench.contestants import Contestant
from bench.ground import Ground, database
from bench.groups.yard import disk
from bench.rounds import Figures
from bench.streams.places import on_disk, with_streams
from bench.triggers.ways import Way

__all__ = ["AtOnce", "Bulk", "Single"]

LONGEST = 600

TABLE = """
CREATE TABLE {name} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer text, state text, amount numeric,
                     changed_at timestamptz DEFAULT now())
"""
INSERT = "INSERT INTO {name} (customer, state, amount) VALUES ('customer 17', 'open', 12.5)"
UPDATE = "UPDATE {name} SET amount = amount + 1 WHERE id = {number}"
MANY = (
    "INSERT INTO {name} (customer, state, amount)"
    " SELECT 'customer ' || n, 'open', n FROM generate_series(1, {count}) AS n"
)
ALL = "UPDATE {name} SET amount = amount + 1"


@contextmanager
def _tables(server: str, contestants: Sequence[Contestant[Way]]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """A database, and the names of their tables in it."""
    with database(server, "triggers") as dsn:
        with_streams(dsn)
        names = {contestant.name: f"t{number}" for number, contestant in enumerate(contestants)}
        with psycopg.connect(dsn, autocommit=True) as connection:
            for contestant in contestants:
                connection.execute(TABLE.format(name=names[contestant.name]).encode())
                contestant.make()(connection, names[contestant.name])
        yield dsn, names


@dataclass(frozen=True)
class _Writes:
    name: str
    contestants: Sequence[Contestant[Way]]
    most_rounds: int | None = None

    def among(self, contestants: Sequence[Contestant[Any]]) -> Self:
        return replace(self, contestants=contestants)

    def _shuffled(self) -> Sequence[Contestant[Way]]:
        return random.sample(self.contestants, len(self.contestants))


@dataclass(frozen=True)
class Single(_Writes):
    """One row at a time, each in a transaction of its own; nobody waits for a disk."""

    def play(self, ground: Ground) -> Mapping[str, Figures]:
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        count = ground.effort.many // 100
        found: dict[str, Figures] = {}
        with _tables(ground.dsn, self.contestants) as (dsn, names), psycopg.connect(dsn, autocommit=True) as connection:
            for contestant in self._shuffled():
                name = names[contestant.name]
                found[contestant.name] = {
                    "insert_us": _time(connection, [INSERT.format(name=name)] * count),
                    "update_us": _time(connection, [UPDATE.format(name=name, number=n + 1) for n in range(count)]),
                }
        return found


@dataclass(frozen=True)
class Bulk(_Writes):
    """Many rows in one statement. The first contestant has no trigger: what it takes is taken off."""

    def play(self, ground: Ground) -> Mapping[str, Figures]:
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        count = ground.effort.many
        found: dict[str, dict[str, float]] = {}
        with _tables(ground.dsn, self.contestants) as (dsn, names), psycopg.connect(dsn, autocommit=True) as connection:
            for contestant in self._shuffled():
                name = names[contestant.name]
                found[contestant.name] = {
                    "insert_us": _time(connection, [MANY.format(name=name, count=count)]) / count,
                    "update_us": _time(connection, [ALL.format(name=name)]) / count,
                }
        plain = dict(found[self.contestants[0].name])
        for figures in found.values():
            figures.update({f"{name} more": figures[name] - plain[name] for name in plain})
        return found


@dataclass(frozen=True)
class AtOnce(_Writes):
    """So many writers at once, who insert one row each time, and wait for the disk."""

    writers: int = 16

    def play(self, ground: Ground) -> Mapping[str, Figures]:
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        seconds = 10 * ground.effort.calling_seconds
        with _tables(on_disk(disk(), ground), self.contestants) as (dsn, names), ExitStack() as stack:
            connections = [stack.enter_context(psycopg.connect(dsn, autocommit=True)) for _ in range(self.writers)]
            found = {}
            for contestant in self._shuffled():
                statement = INSERT.format(name=names[contestant.name]).encode()
                found[contestant.name] = {"per_second": _rate(connections, statement, seconds)}
        return found


def _time(connection: psycopg.Connection[Any], statements: Sequence[str]) -> float:
    """Microseconds that each takes."""
    encoded = [statement.encode() for statement in statements]
    start = monotonic_ns()
    for statement in encoded:
        connection.execute(statement)
    return (monotonic_ns() - start) / len(encoded) / 1000


def _rate(connections: Sequence[psycopg.Connection[Any]], statement: bytes, seconds: float) -> float:
    done: list[int] = []
    end = monotonic() + seconds
    start = threading.Barrier(len(connections))

    def write(connection: psycopg.Connection[Any]) -> None:
        start.wait()
        count = 0
        while monotonic() < end:
            connection.execute(statement)
            count += 1
        done.append(count)

    _in_threads([partial(write, connection) for connection in connections])
    return sum(done) / seconds


def _in_threads(works: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
