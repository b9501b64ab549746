"""What a channel's type costs: a `msgspec.Struct` on its way out and in, beside the text that it becomes."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from functools import cache
from time import monotonic_ns, process_time_ns
from typing import Any

import psycopg

import pgpubsub
from bench.ground import CHANNEL, Ground
from bench.sending.audience import audience
from bench.turns import Cost

__all__ = ["Text", "Typed", "receive", "send"]

BURST = "SELECT pg_notify(%s, format(%s, i)) FROM generate_series(0, %s) i"


class Text:
    """JSON as a `str`."""

    def channel(self) -> Any:
        """To send to and to subscribe to."""
        return CHANNEL

    def payload(self, number: int) -> Any:
        """What is sent."""
        return TEXT % number


TEXT = '{"id":%d,"customer":"Anna Larsson","express":true,"tags":["new","gift"],"total":129.5}'
"""88 bytes or so."""


class Typed(Text):
    """The same as a `Channel` has it."""

    def channel(self) -> Any:
        return pgpubsub.Channel(CHANNEL, _order())

    def payload(self, number: int) -> Any:
        return _order()(number, "Anna Larsson", True, ["new", "gift"], 129.5)


@cache
def _order() -> Any:
    import msgspec

    fields = [("id", int), ("customer", str), ("express", bool), ("tags", list[str]), ("total", float)]
    return msgspec.defstruct("Order", fields)


def send(make: Callable[[], Text], ground: Ground) -> list[Cost]:
    """What a notification takes, of many in one `AsyncHub.notify_many()`."""
    listeners, kind, count = audience(ground), make(), ground.effort.typed
    channel = kind.channel()
    pairs = [(channel, kind.payload(number)) for number in range(count)]

    async def main() -> Cost:
        async with pgpubsub.AsyncHub(listeners.dsn) as hub:
            await hub.notify_many(pairs[: count // 10])
            gc.collect()
            cpu_before, start = process_time_ns(), monotonic_ns()
            await hub.notify_many(pairs)
            return Cost((monotonic_ns() - start) / count, (process_time_ns() - cpu_before) / count)

    cost = asyncio.run(main())
    listeners.expect(count + count // 10)
    return [cost]


def receive(make: Callable[[], Text], ground: Ground) -> list[Cost]:
    """What a notification takes, of a burst that has been sent when the clock starts, until `async for` has it."""
    listeners, kind, count = audience(ground), make(), ground.effort.typed // 10
    statement = BURST, (CHANNEL, TEXT.replace("%d", "%s"), count - 1)

    async def main() -> list[Cost]:
        costs = []
        async with pgpubsub.AsyncHub(listeners.dsn) as hub, hub.subscribe(kind.channel()) as events:
            with psycopg.connect(listeners.dsn, autocommit=True) as connection:
                for _ in range(1 + ground.effort.drained_bursts):
                    connection.execute(*statement)  # for which the loop stands still
                    listeners.expect(count)
                    gc.collect()
                    missing = count
                    cpu_before, start = process_time_ns(), monotonic_ns()
                    async for event in events:
                        last = event
                        missing -= 1
                        if not missing:
                            break
                    costs.append(Cost((monotonic_ns() - start) / count, (process_time_ns() - cpu_before) / count))
                    assert isinstance(last, pgpubsub.Notify), last
                    assert last.payload == kind.payload(count - 1)
        return costs[1:]

    return asyncio.run(main())
