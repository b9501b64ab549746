"""The load on channels: subscribers with each policy on hubs of both kinds, some slow, some that come and go; channels
that are added and removed, and never used again; and who sends, in every way there is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Literal

import pgpubsub
from pgpubsub import AsyncHub, Channel, Gap, Hub, SubscriberTooSlow, Undecodable
from tests.soak.accounts import Cursor
from tests.soak.stage import LONG, UNSURE, Stage

__all__ = ["Channels", "take", "take_in_a_task"]

ONE, MANY = "soak one", "soak many"

Overflow = Literal["clear", "drop_oldest", "latest", "close"]

POLICIES: tuple[Overflow, ...] = ("clear", "drop_oldest", "latest", "close")

CAPACITY = 20
"""Of those who are slow: less than comes while they rest."""

REST = 0.15
"""Seconds that somebody slow takes for a message."""

CACHED = 1100
"""Channels that are used once at the beginning: more than names are remembered anywhere, so that this grows no more."""

STAYS = 15
"""Messages after which somebody who comes and goes has gone."""


@dataclass(frozen=True)
class Tick:
    """What the channel with a type carries."""

    text: str


TYPED = Channel("soak typed", Tick)


class Channels:
    """See the module.

    Args:
        stage: where.
        hub, async_hub: whose subscribers these are.
    """

    def __init__(self, stage: Stage, hub: Hub, async_hub: AsyncHub) -> None:
        self._stage = stage
        self._hub = hub
        self._async_hub = async_hub
        new = stage.accounts.source
        self.calls, self.batches, self.transactions = new("notify"), new("notify_many"), new("transactions")
        self.flood, self.typed = new("notify_stream"), new("typed")
        self.on_one = (self.calls, self.transactions)
        self.on_many = (self.batches, self.flood)
        self._all = (*self.on_one, *self.on_many)

    def receive(self) -> None:
        """Begin to, in threads."""
        stage = self._stage
        everything = stage.accounts.cursor("Hub, all", *self._all, from_now=True)
        with_type = stage.accounts.cursor("Hub, typed", self.typed, from_now=True)
        stage.receive(self._take_all, everything, with_type)
        for policy in POLICIES:
            stage.receive(self._take_slowly, policy)
        stage.receive(self._come_and_go)
        stage.receive(self._add_and_remove)

    def send(self) -> None:
        """Begin to."""
        for work in (self._notify, self._notify_many, self._notify_in_transactions, self._notify_typed):
            self._stage.send(work)

    async def run_tasks(self, ready: asyncio.Event) -> None:
        """The same with the AsyncHub; `ready` when those are there who have to get everything."""
        everything = self._stage.accounts.cursor("AsyncHub, all", *self._all, from_now=True)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take_all_in_a_task(everything, ready))
            for policy in POLICIES:
                tasks.create_task(self._take_slowly_in_a_task(policy))
            tasks.create_task(self._come_and_go_in_tasks())
            tasks.create_task(self._notify_stream())

    # -- threads that receive

    def _take_all(self, cursor: Cursor, with_type: Cursor) -> None:
        with self._hub.subscribe(ONE, MANY, capacity=50_000) as events, self._hub.subscribe(TYPED) as typed:
            while not self._stage.over.is_set():
                for event in (take(events), typed.get_nowait()):
                    self._count("Hub, all", event, with_type if is_typed(event) else cursor)

    def _take_slowly(self, policy: Overflow) -> None:
        name = f"Hub, {policy}"
        while not self._stage.over.is_set():
            cursor = self._new_cursor(name, policy)
            try:
                with self._hub.subscribe(ONE, MANY, capacity=CAPACITY, overflow=policy) as events:
                    for event in events:
                        self._count(name, event, cursor)
                        self._stage.over.wait(REST)
            except SubscriberTooSlow:
                self._stage.done[f"{name}, closed"] += 1

    def _new_cursor(self, name: str, policy: Overflow) -> Cursor:
        return self._stage.accounts.passing(name, *self._all, newest_only=policy == "latest")

    def _come_and_go(self) -> None:
        while not self._stage.over.is_set():
            with self._hub.subscribe(ONE, capacity=500) as events:
                cursor = self._stage.accounts.passing("Hub, passing", *self.on_one)
                for _ in range(STAYS):
                    self._count("Hub, passing", take(events), cursor)

    def _add_and_remove(self) -> None:
        early = [f"soak early {number}" for number in range(CACHED)]
        with self._hub.subscribe(*early):
            self._hub.notify_many([(channel, "here") for channel in early])
        with self._hub.subscribe("soak first", capacity=500) as events:
            for number in count():
                if self._stage.over.is_set():
                    return
                channel = f"soak {number}"
                events.add(channel)
                self._hub.notify(channel, "here")
                if take(events) is not None:
                    self._stage.done["channels added and removed"] += 1
                events.remove(channel)
                self._stage.over.wait(0.3)

    def _count(self, name: str, event: Any, cursor: Cursor) -> None:
        """Something has come, or nothing."""
        if event is None:
            return
        self._stage.done[name] += 1
        if isinstance(event, Gap):
            self._stage.done[f"gaps, {event.reason}"] += 1
            cursor.gap()
        elif isinstance(event, Undecodable):
            self._stage.accounts.complain(f"{name}: {event}")
        else:
            message = cursor.came(event.payload.text if isinstance(event.payload, Tick) else event.payload)
            if message is not None and name.endswith("all") and message.source == self.calls.name:
                self._stage.latencies.since("notify", message.at)

    # -- threads that send

    def _notify(self) -> None:
        for _ in self._stage.times(0.1):
            text = self.calls.next(LONG if self.calls.last % 20 == 0 else 0)
            self._stage.attempt(self.calls, partial(self._hub.notify, ONE, text))
            self._stage.done["notify"] += 1

    def _notify_many(self) -> None:
        for _ in self._stage.times(0.5):
            pairs = [(MANY, self.batches.next()) for _ in range(5)]
            self._stage.attempt(self.batches, partial(self._hub.notify_many, pairs), len(pairs))
            self._stage.done["notify_many"] += 1

    def _notify_in_transactions(self) -> None:
        with self._stage.connect() as conn:
            for number, _ in enumerate(self._stage.times(0.3)):
                if number % 5 == 4:
                    with conn.transaction(force_rollback=True):
                        pgpubsub.notify(conn, ONE, "nobody|1|0|")
                with conn.transaction():
                    pgpubsub.notify(conn, ONE, self.transactions.next())
                self.transactions.committed()
                self._stage.done["notify in a transaction"] += 1

    def _notify_typed(self) -> None:
        for _ in self._stage.times(0.2):
            text = self.typed.next()
            self._stage.attempt(self.typed, partial(self._hub.notify, TYPED, Tick(text)))
            self._stage.done["notify, typed"] += 1

    # -- tasks

    async def _take_all_in_a_task(self, cursor: Cursor, ready: asyncio.Event) -> None:
        async with self._async_hub.subscribe(ONE, MANY, capacity=50_000) as events:
            ready.set()
            while not self._stage.over.is_set():
                self._count("AsyncHub, all", await take_in_a_task(events), cursor)

    async def _take_slowly_in_a_task(self, policy: Overflow) -> None:
        name = f"AsyncHub, {policy}"
        while not self._stage.over.is_set():
            cursor = self._new_cursor(name, policy)
            try:
                async with self._async_hub.subscribe(ONE, MANY, capacity=CAPACITY, overflow=policy) as events:
                    while not self._stage.over.is_set():
                        self._count(name, await take_in_a_task(events), cursor)
                        await asyncio.sleep(REST)
            except SubscriberTooSlow:
                self._stage.done[f"{name}, closed"] += 1

    async def _come_and_go_in_tasks(self) -> None:
        async def come(number: int) -> None:
            async with self._async_hub.subscribe(ONE, capacity=500) as events:
                cursor = self._stage.accounts.passing("AsyncHub, passing", *self.on_one)
                for _ in range(STAYS):
                    self._count("AsyncHub, passing", await take_in_a_task(events), cursor)

        async def come_and_be_cancelled() -> None:
            try:
                async with asyncio.timeout(0.3):
                    await come(0)
            except TimeoutError:
                self._stage.done["AsyncHub, cancelled"] += 1

        while not self._stage.over.is_set():
            await asyncio.gather(come(1), come(2), come_and_be_cancelled())

    async def _notify_stream(self) -> None:
        while not self._stage.quiet.is_set():
            pairs = [(MANY, self.flood.next()) for _ in range(40)]
            try:
                await self._async_hub.notify_stream(pairs)
            except UNSURE:
                self.flood.doubt(len(pairs))
            else:
                self.flood.committed()
            self._stage.done["notify_stream"] += 1
            await asyncio.sleep(2)


def is_typed(event: Any) -> bool:
    return (event.channels if isinstance(event, Gap) else [getattr(event, "channel", None)])[0] == TYPED.name


def take(events: Any) -> Any:
    """The next, or None after a moment."""
    try:
        return events.get(timeout=0.5)
    except TimeoutError:
        return None


async def take_in_a_task(events: Any) -> Any:
    try:
        return await events.get(timeout=0.5)
    except TimeoutError:
        return None
