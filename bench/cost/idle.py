"""Who waits, each in a process of its own and with a database of its own, all at the same time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from functools import partial
from threading import Event
from time import monotonic, sleep
from typing import Any, TypeAlias

import pgpubsub
from bench.child import Pipe, child
from bench.contestants import Receiver
from bench.cost.held import sessions
from bench.gateway.clients import clients
from bench.gateway.turns import PLACE, greet
from bench.gateway.ways import Way
from bench.ground import CHANNEL, QUEUE, Ground, database
from bench.on_loop import LoopReceiver
from bench.processes import resident, settled, spent
from bench.rounds import Figures
from bench.streams.places import with_streams

__all__ = ["LEAST", "Idler", "consume", "read", "receive", "rest", "serve", "take"]

SETTLING = 2.0
"""Seconds in which whatever has to be done at first is done."""

LEAST = 0.05
"""Milliseconds of CPU time per second, and wakings per second, of which less cannot be told from nothing: one or two of
them in half a minute."""

CLIENTS = 100
"""Of a web server."""

Wait: TypeAlias = Callable[[str, Callable[[], None]], None]
"""Waits, by a DSN, for ever; and says when it begins to."""


@dataclass(frozen=True)
class Idler:
    """Who waits."""

    wait: Wait
    install: Callable[[str], object] = with_streams


def rest(makes: Sequence[Callable[[], Idler]], ground: Ground, *, seconds: float) -> list[Figures]:
    """CPU time in milliseconds per second, wakings per second, and connections."""
    with ExitStack() as stack:
        dsns = [stack.enter_context(database(ground.dsn, f"idle_{index}")) for index in range(len(makes))]
        pipes = []
        for make, dsn in zip(makes, dsns, strict=True):
            make().install(dsn)
            pipes.append(stack.enter_context(child(_rest, make().wait, dsn)))
        figures = _watch([int(pipe.recv()) for pipe in pipes], seconds)
        return [{**its, "connections": sessions(dsn)} for its, dsn in zip(figures, dsns, strict=True)]


def serve(makes: Sequence[Callable[[], Way]], ground: Ground, *, seconds: float) -> list[Figures]:
    """The same of web servers, each with clients that wait; and how many KiB of memory each client takes."""
    (place,) = ground.keep([PLACE])
    with ExitStack() as stack:
        servers, grown, connections = [], [], []
        for make in makes:
            way = make()
            server, connection = stack.enter_context(place.serving(way))
            before = settled(partial(resident, server.pid))
            crowd = stack.enter_context(clients(CLIENTS, server.port, way.path))
            greet(crowd, connection, way)
            grown.append(max(0, settled(partial(resident, server.pid)) - before))
            connections.append(sessions(connection.info.dsn) - 1)
            servers.append(server.pid)
        figures = _watch(servers, seconds)
        return [
            {**its, "connections": its_connections, "kib": its_bytes / CLIENTS / 1024}
            for its, its_connections, its_bytes in zip(figures, connections, grown, strict=True)
        ]


def _watch(processes: Sequence[int], seconds: float) -> list[Figures]:
    sleep(SETTLING)
    start, before = monotonic(), [spent(process) for process in processes]
    sleep(seconds)
    after = [spent(process) for process in processes]
    took = monotonic() - start
    return [
        {
            "cpu_ms_per_s": 1000 * (now.cpu - then.cpu) / took,
            "wakings_per_s": (now.wakings - then.wakings) / took,
        }
        for now, then in zip(after, before, strict=True)
    ]


def _rest(wait: Wait, dsn: str, pipe: Pipe) -> None:
    wait(dsn, lambda: pipe.send(os.getpid()))


def receive(dsn: str, ready: Callable[[], None], *, make: Callable[[], Receiver]) -> None:
    """For a notification."""
    receiver = make()
    receiver.open(dsn, CHANNEL)
    ready()
    if isinstance(receiver, LoopReceiver):
        receiver.idle()
    else:
        Event().wait()


def read(dsn: str, ready: Callable[[], None], *, readers: int) -> None:
    """For an entry in each of so many streams."""

    async def main() -> None:
        async with pgpubsub.AsyncHub(dsn) as hub, AsyncExitStack() as stack:
            for number in range(readers):
                await stack.enter_async_context(hub.stream(f"{QUEUE} {number}").read(after=pgpubsub.END))
            ready()
            await asyncio.Event().wait()

    asyncio.run(main())


def consume(dsn: str, ready: Callable[[], None]) -> None:
    """For an entry, as the consumer of a group."""

    async def main() -> None:
        async with pgpubsub.AsyncHub(dsn) as hub, hub.stream(QUEUE).consume("group") as consumer:
            ready()
            async for delivery in consumer:
                raise AssertionError(delivery)

    asyncio.run(main())


class _Desk:
    def __init__(self, ready: Callable[[], None]) -> None:
        self.open = ready

    def take(self, payload: str) -> None:
        raise AssertionError(payload)


def take(dsn: str, ready: Callable[[], None], *, by: Callable[[str, Any], None]) -> None:
    """For a job, as somebody's worker."""
    by(dsn, _Desk(ready))
