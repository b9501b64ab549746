"""What a live read costs when much is stored, or a transaction has been open for long: from an append to its entry in
the reader, one after the other, on servers that do not wait for a disk."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from time import monotonic_ns

import psycopg

import pgpubsub
from bench.ground import QUEUE, Ground, database
from bench.streams.places import HeldServer, fill, with_streams
from pgpubsub.core.position import stream_id

__all__ = ["Stock", "read_live"]

LONGEST = 3600
"""Seconds in which the largest table is filled."""

ELSEWHERE = 100_000
"""Transactions that others have committed since the one that stays open began."""


@dataclass(frozen=True)
class Stock:
    """What is there."""

    entries: int
    """In the stream."""
    held: bool = False
    """Whether a transaction is open that has written something."""
    uncommitted: int = 0
    """Entries that it has appended to this stream."""


class Shelf:
    """A database with a stock, through all rounds."""

    def __init__(self, server: str, stock: Stock) -> None:
        self._server = server
        self._stock = stock
        self._stack = ExitStack()

    def start(self) -> None:
        """Fill it; then begin the transaction."""
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        stock = self._stock
        self.dsn = self._stack.enter_context(database(self._server, f"stock_{stock.entries}_{stock.uncommitted}"))
        with_streams(self.dsn)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            fill(connection, QUEUE, stock.entries)
            if not stock.held:
                return
            holder = self._stack.enter_context(psycopg.connect(self.dsn))
            self._stack.callback(holder.rollback)
            holder.execute("SELECT pg_current_xact_id()")
            holder.execute(
                "INSERT INTO pgpubsub.entry (stream, payload) SELECT %s, 'not yet' FROM generate_series(1, %s)",
                (stream_id(QUEUE), stock.uncommitted),
            )
            connection.execute(
                f"DO 'BEGIN FOR i IN 1..{ELSEWHERE} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END'".encode()
            )

    def close(self) -> None:
        """Drop it."""
        self._stack.close()


@cache
def _shelf(server: str, stock: Stock) -> Callable[[], Shelf]:
    return partial(Shelf, server, stock)


def read_live(make: Callable[[], Stock], ground: Ground) -> list[int]:
    """How many nanoseconds each entry takes."""
    stock = make()
    server = ground.keep([HeldServer])[0].dsn if stock.held else ground.dsn
    shelf = ground.keep([_shelf(server, stock)])[0]
    gc.collect()
    return asyncio.run(_read_live(shelf.dsn, ground.effort.warm_up_samples, ground.effort.samples))


async def _read_live(dsn: str, warm_up: int, samples: int) -> list[int]:
    took = []
    async with pgpubsub.AsyncHub(dsn) as writing, pgpubsub.AsyncHub(dsn) as reading:  # one hub would tell itself
        stream = writing.stream(QUEUE)
        async with reading.stream(QUEUE).read(after=pgpubsub.END) as entries:
            for number in range(warm_up + samples):
                start = monotonic_ns()
                await stream.append(f"{number:0100}")
                entry = await entries.get(30)
                took.append(monotonic_ns() - start)
                assert isinstance(entry, pgpubsub.Entry), entry
                assert int(entry.payload) == number, entry
    return took[warm_up:]
