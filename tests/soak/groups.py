"""The load on groups: handlers in threads and tasks, consumers that leave and join, failures, dead letters, and effects
that have to happen once."""

from __future__ import annotations

from threading import Lock
from typing import Any

import psycopg

from pgpubsub import AsyncHub, Entry, Hub, Undecodable
from tests.soak.accounts import read
from tests.soak.channels import take
from tests.soak.stage import Stage
from tests.soak.streams import JOBS, KEYS, Streams

__all__ = ["Groups"]

FAILS = 40
"""Every so many-th job fails at its first attempt."""

POISONED = 200
"""Every so many-th fails at each, and is set aside."""

STAYS = 60
"""Deliveries after which a consumer leaves the group, and joins it again."""

OPTIONS: dict[str, Any] = {"attempts": 3, "backoff": 0.2, "lease": 10}


class Failed(Exception):
    """A handler has."""


class Groups:
    """See the module.

    Args:
        stage: where.
        hub, async_hub: that consume.
        streams: with the jobs.
    """

    def __init__(self, stage: Stage, hub: Hub, async_hub: AsyncHub, streams: Streams) -> None:
        self._stage = stage
        self._hub = hub
        self._async_hub = async_hub
        self._jobs = streams.jobs
        self._handled = Handled(stage, "process", streams)
        self._effects = Handled(stage, "transactions", streams)
        self._batches = Handled(stage, "batches", streams)

    def install(self, conn: psycopg.Connection[Any]) -> None:
        """What effects are noted in: how many there were, and the sum of their numbers."""
        conn.execute("CREATE TABLE soak_effect (slot int PRIMARY KEY, count bigint, total numeric)")
        conn.execute("INSERT INTO soak_effect SELECT slot, 0, 0 FROM generate_series(0, 9) AS slot")

    def receive(self) -> None:
        """Begin to, in threads."""
        for work in (self._process, self._consume, self._consume_batches, self._look_after):
            self._stage.receive(work)

    async def run_tasks(self) -> None:
        """The same with the AsyncHub."""

        async def handle(entry: Entry[Any]) -> None:
            self._handled.handle(entry)

        await self._async_hub.stream(JOBS).process("process", handle, concurrency=2, **OPTIONS)

    def effects(self) -> list[str]:
        """What is wrong with them; nothing, if each happened once."""
        with self._stage.connect() as conn:
            found = conn.execute("SELECT sum(count)::bigint, sum(total)::bigint FROM soak_effect").fetchone()
        last = self._jobs.last
        expected = (last, last * (last + 1) // 2)
        return [] if found == expected else [f"effects: count and sum {found}, where {expected} were due"]

    def behind(self) -> list[str]:
        """What is still to be handled."""
        effects = self.effects()
        return [*effects, *(words for its in (self._handled, self._effects, self._batches) for words in its.behind())]

    def _process(self) -> None:
        self._hub.stream(JOBS).process("process", self._handled.handle, concurrency=2, **OPTIONS)

    def _consume(self) -> None:
        while not self._stage.over.is_set():
            with self._hub.stream(JOBS).consume("transactions", **OPTIONS) as consumer:
                for _ in range(STAYS):
                    delivery = take(consumer)
                    if delivery is None:
                        break
                    with delivery.transaction() as conn:
                        number = read(delivery.entry.payload).number
                        conn.execute(
                            "UPDATE soak_effect SET count = count + 1, total = total + %s WHERE slot = %s",
                            [number, number % 10],
                        )
                        self._effects.handle(delivery.entry, poisoned=False)

    def _consume_batches(self) -> None:
        while not self._stage.over.is_set():
            with self._hub.stream(JOBS).consume("batches", batch=20, **OPTIONS) as consumer:
                for _ in range(STAYS):
                    batch = take(consumer)
                    if batch is None:
                        break
                    with batch:
                        for entry in batch:
                            self._batches.handle(entry, poisoned=False, fails=False)

    def _look_after(self) -> None:
        """Remove what was set aside, as somebody does who has looked at it."""
        jobs = self._hub.stream(JOBS)
        while not self._stage.over.wait(3):
            jobs.groups()
            if letters := jobs.dead("process"):
                self._stage.done["dead letters"] += jobs.discard("process", [id_of(letter.entry) for letter in letters])


def id_of(entry: Entry[Any] | Undecodable) -> int:
    assert isinstance(entry, Entry)
    return entry.id


class Handled:
    """What the members of one group have handled, all together.

    An entry comes again if its handler has failed, or its acknowledgement was lost with a connection. None is left out:
    of each key, they come in order.
    """

    def __init__(self, stage: Stage, group: str, streams: Streams) -> None:
        self._stage = stage
        self._group = group
        self._lock = Lock()
        self._failed: set[int] = set()
        self._last: dict[str | None, int] = {}
        self._source = streams.jobs

    def behind(self) -> list[str]:
        """The keys whose last entry has not come."""
        last = self._source.settled
        due = {str(number % KEYS): number for number in range(max(1, last - KEYS + 1), last + 1)}
        with self._lock:
            missing = [key for key, number in due.items() if self._last.get(key, 0) < number]
        return [f"group {self._group}: keys {missing}"] if missing else []

    def handle(self, entry: Entry[Any], *, poisoned: bool = True, fails: bool = True) -> None:
        """Do what there is to do.

        Raises:
            Failed: it fails.
        """
        message = read(entry.payload)
        with self._lock:
            self._stage.done[f"group, {self._group}"] += 1
            last = self._last.get(entry.key, 0)
            if message.number <= last:
                self._stage.done[f"group, {self._group}, again"] += 1
            else:
                self._stage.latencies.since("handled", message.at)
                if last and message.number != last + KEYS:
                    self._stage.accounts.complain(f"{self._group}: {message.number} came after {last} of its key")
                self._last[entry.key] = message.number
            first = message.number not in self._failed
            if fails and message.number % FAILS == 0 and first:
                self._failed.add(message.number)
                raise Failed("at first")
            self._failed.discard(message.number)
        if poisoned and message.number % POISONED == POISONED // 2:
            raise Failed("always")
