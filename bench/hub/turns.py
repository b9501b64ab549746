"""One turn of one contestant, for what the hub is measured by besides `bench.turns`.

- `publish`: how long each call takes that sends a notification, from before it to after its commit.
- `enter`: how long it takes to begin to listen to many channels that are wanted at once.
- `fan_out`: one message to many subscribers: how long the call of `pg_notify` takes, which is made in another process
  on a psycopg connection of its own, and how long until the last of them has the message, from the same moment.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache, partial
from statistics import median
from time import monotonic_ns
from typing import NamedTuple

from bench.contestants import Entrant, Publisher
from bench.ground import CHANNEL, Ground
from bench.hub.fleet import Crew, Fleet
from bench.rounds import Figures

__all__ = ["PAYLOAD_SIZE", "enter", "entering", "fan_out", "publish"]

PAYLOAD_SIZE = 20


class Message(NamedTuple):
    """What one message to all subscribers took, in nanoseconds."""

    call: int
    delivery: int


def publish(make: Callable[[], Publisher], ground: Ground, length: int = PAYLOAD_SIZE) -> list[int]:
    """Time of a call that sends, in nanoseconds."""
    publisher = make()
    gc.collect()
    publisher.open(ground.dsn, CHANNEL)
    with closing(publisher):
        text = "x" * length
        publisher.publish(text, ground.effort.warm_up_samples)
        return publisher.publish(text, ground.effort.samples)


def enter(make: Callable[[], Entrant], ground: Ground) -> list[int]:
    """Time to listen to many channels, in nanoseconds."""
    entrant = make()
    channels = [f"{CHANNEL}_{number}" for number in range(ground.effort.entered)]
    gc.collect()
    entrant.open(ground.dsn)
    with closing(entrant):
        start = monotonic_ns()
        entrant.enter(channels)
        return [monotonic_ns() - start]


def entering(samples: Sequence[int]) -> Figures:
    """The median, in milliseconds."""
    return {"ms": median(samples) / 1e6}


def fan_out(crews: Sequence[Callable[[], Crew]], ground: Ground) -> list[Figures]:
    """One message after the other, each to another fleet; medians, in microseconds."""
    effort = ground.effort
    fleets = ground.keep([_fleet(crew, effort.subscribers) for crew in crews])
    messages: list[list[Message]] = [[] for _ in fleets]
    for _ in range(effort.messages):
        for index in random.sample(range(len(fleets)), len(fleets)):
            messages[index].append(Message(*fleets[index].message()))
    return [
        {
            "call_us": median(message.call for message in of_one) / 1000,
            "delivery_us": median(message.delivery for message in of_one) / 1000,
        }
        for of_one in messages
    ]


@cache
def _fleet(crew: Callable[[], Crew], size: int) -> Callable[[], Fleet]:
    return partial(Fleet, crew, size)
