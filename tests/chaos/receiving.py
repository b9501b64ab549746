"""Who subscribes and reads: `python -m tests.chaos.receiving`, with its settings as JSON.

A journal's lines, of which each has a time after the first word, and then who has got it:

    open CHANNELS LATEST        a subscription begins (in place of an earlier one of the same name)
    closed WHY                  it has ended
    notify CHANNEL PUBLISHER NUMBER
    gap REASON CHANNELS SINCE COUNT
    entry PUBLISHER NUMBER POSITION
    stream gap REASON
    strange WORDS               anything else
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from random import Random
from threading import Event, Thread
from time import monotonic, time
from typing import Any, Literal

import pgpubsub
from pgpubsub import AsyncHub, Hub, NotLive, SubscriberTooSlow
from pgpubsub.core.buffer import Overflow
from pgpubsub.hubs.mailbox import CAPACITY, Options
from tests.chaos import texts
from tests.chaos.gateway import by_events, by_web_socket, instant
from tests.chaos.texts import CHANNELS, SOMETIMES, STREAMS
from tests.system.processes import Journal

__all__ = ["CLIENTS", "SUBSCRIBERS", "Receiving"]

LEFT, TOO_SLOW = "it left", "it was too slow"


@dataclass(frozen=True)
class Subscriber:
    """What one does: `slow` ones dawdle now and then; who stays for so many events leaves, and comes again."""

    channels: tuple[str, ...]
    capacity: int = CAPACITY
    overflow: Overflow = "clear"
    slow: bool = False
    stays: int = 0

    def may_end(self, why: str) -> bool:
        """Whether that is a reason for its subscription to have ended."""
        return (why == LEFT and self.stays > 0) or (why == TOO_SLOW and self.overflow == "close")

    @property
    def options(self) -> Options:
        """For `subscribe`."""
        return {"capacity": self.capacity, "overflow": self.overflow}


SUBSCRIBERS = {
    "all": Subscriber(CHANNELS),
    "slow, clear": Subscriber(CHANNELS[:1], 20, slow=True),
    "slow, drop_oldest": Subscriber(CHANNELS, 20, "drop_oldest", slow=True),
    "latest": Subscriber(CHANNELS, overflow="latest", slow=True),
    "slow, close": Subscriber(CHANNELS, 20, "close", slow=True),
    "restless": Subscriber((CHANNELS[0], SOMETIMES), stays=40),
}


CLIENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "events": (CHANNELS, STREAMS),
    "slow events": (CHANNELS[:1], ()),
    "web socket": (CHANNELS[1:], STREAMS[:1]),
}
"""Channels and streams that clients of the gateway follow."""


@dataclass(frozen=True)
class Receiving:
    """What it does.

    Args:
        kind: a hub with subscribers and readers of streams, or clients of the gateway.
        dsn: of the database.
        journal: where it notes what it gets.
        seed: of its choices.
        port: of the gateway.
        positions: where readers go on, by name.
    """

    kind: Literal["Hub", "AsyncHub", "clients"]
    dsn: str
    journal: str
    seed: int
    port: int
    positions: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        notes = Notes(Journal(self.journal))
        if self.kind == "Hub":
            in_threads(self, notes)
        elif self.kind == "AsyncHub":
            asyncio.run(in_tasks(self, notes))
        else:
            as_clients(self, notes)


class Notes:
    """Writes the journal."""

    def __init__(self, journal: Journal) -> None:
        self.write = journal.write

    def opened(self, name: str, channels: tuple[str, ...], *, latest: bool) -> None:
        self.write("open", monotonic(), name, channels, latest)

    def closed(self, name: str, why: str) -> None:
        self.write("closed", monotonic(), name, why)

    def came(self, name: str, event: Any) -> None:
        """On a channel."""
        if isinstance(event, pgpubsub.Gap):
            self.gap(name, str(event.reason), event.channels, event.since.timestamp(), event.count)
        else:
            self.message(name, event.channel, event.payload)

    def gap(self, name: str, reason: str, channels: tuple[str, ...], since: float, count: int | None) -> None:
        self.write("gap", monotonic(), name, reason, channels, monotonic() - time() + since, count)

    def message(self, name: str, channel: str, payload: str) -> None:
        try:
            self.write("notify", monotonic(), name, channel, *texts.read(payload))
        except ValueError as error:
            self.write("strange", monotonic(), name, str(error))

    def read(self, name: str, event: Any) -> None:
        """From a stream."""
        if isinstance(event, pgpubsub.Gap):
            self.write("stream gap", monotonic(), name, str(event.reason))
        else:
            self.entry(name, event.payload, event.position)

    def entry(self, name: str, payload: str, position: str) -> None:
        try:
            self.write("entry", monotonic(), name, *texts.read(payload), position)
        except ValueError as error:
            self.write("strange", monotonic(), name, str(error))


def begin(work: Callable[[], object]) -> None:
    Thread(target=work, daemon=True).start()


# -- threads


def in_threads(settings: Receiving, notes: Notes) -> None:
    with closing(Hub(settings.dsn)) as hub:
        for name, its in SUBSCRIBERS.items():
            begin(partial(subscribe, hub, notes, name, Random(f"{settings.seed} {name}"), its))
        for stream in STREAMS:
            position = settings.positions.get(stream, pgpubsub.BEGINNING)
            begin(partial(read, hub, notes, stream, Random(f"{settings.seed} {stream}"), position))
        notes.write("ready", monotonic())
        sys.stdin.read()


def subscribe(hub: Hub, notes: Notes, name: str, chance: Random, its: Subscriber) -> None:
    while True:
        try:
            with hub.subscribe(*its.channels, **its.options) as events:
                notes.opened(name, its.channels, latest=its.overflow == "latest")
                for number, event in enumerate(events, 1):
                    notes.came(name, event)
                    if its.slow and chance.random() < 0.1:
                        Event().wait(chance.uniform(0, 0.3))
                    if number == its.stays:
                        notes.closed(name, LEFT)
                        break
                else:
                    notes.closed(name, "it came to an end")
        except NotLive:
            continue
        except SubscriberTooSlow:
            notes.closed(name, TOO_SLOW)


def read(hub: Hub, notes: Notes, stream: str, chance: Random, position: Any) -> None:
    while True:
        try:
            with hub.stream(stream, poll_interval=0.5).read(after=position) as reader:
                for _ in range(chance.randrange(1, 200)):
                    event = reader.get()
                    notes.read(stream, event)
                    position = reader.position
        except NotLive:
            continue


# -- tasks


async def in_tasks(settings: Receiving, notes: Notes) -> None:
    hub = AsyncHub(settings.dsn)
    try:
        async with asyncio.TaskGroup() as tasks:
            for name, its in SUBSCRIBERS.items():
                chance = Random(f"{settings.seed} {name}")
                tasks.create_task(subscribe_in_a_task(hub, notes, name, chance, its))
            for stream in STREAMS:
                position = settings.positions.get(stream, pgpubsub.BEGINNING)
                chance = Random(f"{settings.seed} {stream}")
                tasks.create_task(read_in_a_task(hub, notes, stream, chance, position))
            notes.write("ready", monotonic())
    finally:
        await hub.close(0)


async def subscribe_in_a_task(hub: AsyncHub, notes: Notes, name: str, chance: Random, its: Subscriber) -> None:
    while True:
        try:
            async with hub.subscribe(*its.channels, **its.options) as events:
                notes.opened(name, its.channels, latest=its.overflow == "latest")
                number = 0
                async for event in events:
                    notes.came(name, event)
                    number += 1
                    if its.slow and chance.random() < 0.1:
                        await asyncio.sleep(chance.uniform(0, 0.3))
                    if number == its.stays:
                        notes.closed(name, LEFT)
                        break
                else:
                    notes.closed(name, "it came to an end")
        except NotLive:
            continue
        except SubscriberTooSlow:
            notes.closed(name, TOO_SLOW)


async def read_in_a_task(hub: AsyncHub, notes: Notes, stream: str, chance: Random, position: Any) -> None:
    while True:
        try:
            async with hub.stream(stream, poll_interval=0.5).read(after=position) as reader:
                for _ in range(chance.randrange(1, 200)):
                    event = await reader.get()
                    notes.read(stream, event)
                    position = reader.position
        except NotLive:
            continue


# -- clients


def as_clients(settings: Receiving, notes: Notes) -> None:
    for name, (channels, streams) in CLIENTS.items():
        follow = by_web_socket if name == "web socket" else by_events
        slow = Random(settings.seed) if name.startswith("slow") else None
        begin(partial(attend, notes, name, channels, follow(settings.port, channels, streams), slow))
    notes.write("ready", monotonic())
    sys.stdin.read()


def attend(notes: Notes, name: str, channels: tuple[str, ...], following: Any, slow: Random | None) -> None:
    opened = False
    for event in following:
        if slow is not None and slow.random() < 0.1:
            Event().wait(slow.uniform(0, 0.3))
        if event["type"] == "listening":
            if channels and not opened:
                notes.opened(name, channels, latest=False)
            opened = True
        elif event["type"] == "message" and "stream" in event:
            notes.entry(f"{name}: {event['stream']}", event["payload"], event["position"])
        elif event["type"] == "message":
            notes.message(name, event["channel"], event["payload"])
        elif "stream" in event:
            notes.write("stream gap", monotonic(), f"{name}: {event['stream']}", event["reason"])
        else:
            notes.gap(name, event["reason"], (event["channel"],), instant(event["since"]), event["count"])


if __name__ == "__main__":
    for name in ("pgpubsub", "psycopg"):
        logging.getLogger(name).setLevel(logging.ERROR)  # below that they tell of faults, as they should
    Receiving(**json.loads(sys.argv[1])).run()
