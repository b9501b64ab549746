"""The load on streams: appends in every way, retention, and readers that stop and go on where they were."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Any

import psycopg

import pgpubsub
import pgpubsub.streams
from pgpubsub import AsyncHub, Entry, Gap, Hub
from pgpubsub.core.position import Start
from tests.soak.accounts import Cursor, Source
from tests.soak.channels import take, take_in_a_task
from tests.soak.stage import LONG, UNSURE, Stage

__all__ = ["JOBS", "KEPT", "KEYS", "LOG", "Streams"]

LOG, JOBS = "soak log", "soak jobs"

KEPT = 3000
"""Entries of the log that retention leaves. They are there from the beginning, so that the table has its size."""

JOBS_KEPT = 300
"""The same of the jobs, which begin with none."""

KEYS = 50
"""Of the jobs: each number belongs to one of so many."""

STAYS = 40
"""Entries after which a reader stops, and goes on."""


class Streams:
    """See the module.

    Args:
        stage: where.
        hub, async_hub: that append and read.
    """

    def __init__(self, stage: Stage, hub: Hub, async_hub: AsyncHub) -> None:
        self._stage = stage
        self._hub = hub
        self._async_hub = async_hub
        new = stage.accounts.source
        self.appends, self.async_appends = new("append"), new("async append")
        self.batches, self.transactions, self.jobs = new("append_many"), new("append in a transaction"), new("jobs")
        self.in_log = (self.appends, self.async_appends, self.batches, self.transactions)

    def install(self, conn: psycopg.Connection[Any]) -> None:
        """Make the streams, as long as they will be."""
        pgpubsub.streams.install(conn)
        pgpubsub.streams.create(conn, LOG, max_entries=KEPT)
        pgpubsub.streams.create(conn, JOBS, max_entries=JOBS_KEPT, keep_unconsumed=True)
        self._hub.stream(LOG).append_many(["before|0|0|"] * KEPT)

    def receive(self) -> None:
        """Begin to, in threads."""
        self._stage.receive(self._read, self._stage.accounts.cursor("reader", *self.in_log))
        self._stage.receive(self._read_what_there_is)
        self._stage.receive(self._look_in)

    def send(self) -> None:
        """Begin to."""
        for work in (self._append, self._append_many, self._append_in_transactions, self._append_jobs):
            self._stage.send(work)

    async def run_tasks(self) -> None:
        """The same with the AsyncHub."""
        async with asyncio.TaskGroup() as tasks:
            cursor = self._stage.accounts.cursor("reader in a task", *self.in_log)
            tasks.create_task(self._read_in_a_task(cursor))
            tasks.create_task(self._append_in_a_task())

    # -- readers

    def _read(self, cursor: Cursor) -> None:
        position: str | Start = pgpubsub.BEGINNING
        while not self._stage.over.is_set():
            with self._hub.stream(LOG).read(after=position) as reader:
                for _ in range(STAYS):
                    self._count("reader", take(reader), cursor)
                position = reader.position or position

    def _read_what_there_is(self) -> None:
        """Again and again, as a program that is started by cron."""
        position: str | Start = pgpubsub.END
        cursor = self._stage.accounts.passing("reader of what there is", *self.in_log)
        while not self._stage.over.wait(1):
            with self._hub.stream(LOG).read(after=position, follow=False) as reader:
                for event in reader:
                    self._count("reader of what there is", event, cursor)
                position = reader.position or position

    def _look_in(self) -> None:
        """Begin at the end, take one, and leave."""
        while not self._stage.over.wait(0.5):
            with self._hub.stream(LOG).read(after=pgpubsub.END) as reader:
                if take(reader) is not None:
                    self._stage.done["reader, passing"] += 1

    async def _read_in_a_task(self, cursor: Cursor) -> None:
        position: str | Start = pgpubsub.BEGINNING
        while not self._stage.over.is_set():
            async with self._async_hub.stream(LOG).read(after=position) as reader:
                for _ in range(STAYS):
                    self._count("reader in a task", await take_in_a_task(reader), cursor)
                position = reader.position or position

    def _count(self, name: str, event: Entry[Any] | Gap | Any, cursor: Cursor) -> None:
        if event is None:
            return
        if isinstance(event, Gap):
            self._stage.done[f"gaps of streams, {event.reason}"] += 1
            self._stage.accounts.complain(f"{name}: {event}")
            return
        self._stage.done[name] += 1
        message = cursor.came(event.payload)
        follows = name != "reader of what there is"  # which looks once a second
        if message is not None and follows and message.source == self.appends.name:
            self._stage.latencies.since("append", message.at)

    # -- those who append

    def _append(self) -> None:
        for _ in self._stage.times(0.15):
            text = self.appends.next(LONG if self.appends.last % 50 == 0 else 100)
            self._append_for_sure(LOG, self.appends, text)
            self._stage.done["append"] += 1

    def _append_jobs(self) -> None:
        for _ in self._stage.times(0.1):
            self._append_for_sure(JOBS, self.jobs, self.jobs.next(100))
            self._stage.done["append a job"] += 1

    def _append_for_sure(self, stream: str, source: Source, text: str) -> None:
        """Until it is stored, once."""
        its = self._hub.stream(stream)
        while True:
            try:
                its.append(text, key=f"{source.last % KEYS}", idempotency_key=f"{source.name} {source.last}")
            except UNSURE:
                continue
            source.committed()
            return

    def _append_many(self) -> None:
        for _ in self._stage.times(1):
            texts: Sequence[str] = [self.batches.next(100) for _ in range(10)]
            self._stage.attempt(self.batches, partial(self._hub.stream(LOG).append_many, texts), 10)
            self._stage.done["append_many"] += 1

    def _append_in_transactions(self) -> None:
        with self._stage.connect() as conn:
            for _ in self._stage.times(0.4):
                with conn.transaction():
                    pgpubsub.append(conn, LOG, self.transactions.next(100), headers={"by": "soak"})
                self.transactions.committed()
                self._stage.done["append in a transaction"] += 1

    async def _append_in_a_task(self) -> None:
        for number in count(1):
            if self._stage.quiet.is_set():
                return
            text = self.async_appends.next(100)
            while True:
                try:
                    await self._async_hub.stream(LOG).append(text, idempotency_key=f"async {number}")
                except UNSURE:
                    continue
                break
            self.async_appends.committed()
            self._stage.done["append in a task"] += 1
            await asyncio.sleep(0.2)
