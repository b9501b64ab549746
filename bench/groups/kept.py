"""What tables grow to under constant load: one writer, one group, and retention. An hour's worth of entries, ten times
as fast: so the hub trims, and autovacuum looks, ten times as often as they do unless told otherwise.
"""

from __future__ import annotations

import asyncio
import faulthandler
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Self

import psycopg

import pgpubsub
import pgpubsub.streams
from bench.contestants import Contestant
from bench.ground import QUEUE, Ground
from bench.rounds import Figures
from pgpubsub.streams import retention
from pgpubsub.testing import TemporaryServer

__all__ = ["DEAD", "GREW", "RATE", "SIZE", "Kept", "Relations"]

FASTER = 10
"""Times as fast as real."""

RATE = 500
"""Entries per second, in real time."""

KEPT = 300.0
"""Seconds for which entries are kept, in real time."""

SAMPLES = 24
"""Looks at the sizes, over the hour."""

AUTOVACUUM = {"autovacuum_naptime": f"{60 / FASTER:g}s"}

SIZE, GREW, DEAD = "bytes", "from the first half to the second", "dead rows"

MEASURED = """
SELECT relname, pg_table_size(relid), pg_indexes_size(relid), n_dead_tup
  FROM pg_stat_user_tables WHERE schemaname = 'pgpubsub'
"""

Sizes = Mapping[str, tuple[int, int, int]]
"""By table: its bytes, those of its indexes, and its dead rows."""


@dataclass(frozen=True)
class Relations:
    """What is measured."""

    tables: Sequence[str]
    indexes: bool = False
    """Theirs, and not themselves."""

    def bytes_in(self, sizes: Sizes) -> int:
        return sum(sizes[table][1 if self.indexes else 0] for table in self.tables)

    def dead_in(self, sizes: Sizes) -> int:
        return sum(sizes[table][2] for table in self.tables)


@dataclass(frozen=True)
class Kept:
    """A `Measurement` in which there is one run, and the contestants are what grows."""

    name: str
    contestants: Sequence[Contestant[Relations]]
    most_rounds: int | None = None

    def play(self, ground: Ground) -> Mapping[str, Figures]:
        seconds = ground.effort.hour_seconds
        faulthandler.dump_traceback_later(2 * seconds + 60, exit=True)
        with TemporaryServer(tcp=True, settings=AUTOVACUUM) as server:
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                pgpubsub.streams.install(connection)
                pgpubsub.streams.create(connection, QUEUE, max_age=KEPT / FASTER, keep_unconsumed=True)
            samples = asyncio.run(_run(server.dsn(), seconds))
        found = {}
        for contestant in self.contestants:
            relations = contestant.make()
            sizes = [relations.bytes_in(sample) for sample in samples]
            half = len(sizes) // 2
            found[contestant.name] = {
                SIZE: float(max(sizes)),
                GREW: max(sizes[half:]) / max(sizes[:half]),
                DEAD: float(max(relations.dead_in(sample) for sample in samples)),
            }
        return found

    def among(self, contestants: Sequence[Contestant[Any]]) -> Self:
        return replace(self, contestants=contestants)


async def _run(dsn: str, seconds: float) -> Sequence[Sizes]:
    """Append, handle and remove for so long."""
    interval, retention.INTERVAL = retention.INTERVAL, retention.INTERVAL / FASTER
    try:
        async with pgpubsub.AsyncHub(dsn) as hub, asyncio.TaskGroup() as tasks:
            handling = tasks.create_task(_handle(hub))
            looking = tasks.create_task(_look(dsn, seconds))
            await _append(hub, seconds)
            samples = await looking
            handling.cancel()
            return samples
    finally:
        retention.INTERVAL = interval


async def _append(hub: pgpubsub.AsyncHub, seconds: float) -> None:
    stream = hub.stream(QUEUE)
    start = monotonic()
    appended = 0
    while (passed := monotonic() - start) < seconds:
        due = int(passed * RATE * FASTER) - appended
        payloads = [f"{appended + number:0100}" for number in range(due)]
        await stream.append_many(payloads, key=lambda payload: str(payload)[-3:])
        appended += due
        await asyncio.sleep(0.02)


async def _handle(hub: pgpubsub.AsyncHub) -> None:
    async with hub.stream(QUEUE).consume("group", batch=100) as consumer:
        async for batch in consumer:
            async with batch:
                pass


async def _look(dsn: str, seconds: float) -> Sequence[Sizes]:
    samples = []
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        for _ in range(SAMPLES):
            await asyncio.sleep(seconds / SAMPLES)
            cursor = await connection.execute(MEASURED)
            samples.append({name: (table, indexes, dead) for name, table, indexes, dead in await cursor.fetchall()})
    return samples
