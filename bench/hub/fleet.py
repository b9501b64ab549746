"""A thousand subscribers in one process, which tells when all of them have got a message.

Each fleet has a process, a server and a sender of its own and stays through all rounds, so that the thousand
connections of one neither are opened anew each time nor are woken by what the others are sent.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue
from time import monotonic_ns
from typing import Any

import psycopg
from psycopg import pq

import pgpubsub
from bench.child import Pipe, child
from bench.ground import CHANNEL
from bench.sender import Sender, Stamp
from pgpubsub.testing import TemporaryServer

__all__ = ["Crew", "Fleet", "Tally", "bare_tasks", "bare_threads", "tasks", "threads"]


class Tally:
    """In the fleet's process: counts who has got the message."""

    def __init__(self, size: int, pipe: Pipe) -> None:
        self._size = size
        self._pipe = pipe
        self._entries = itertools.count(1)
        self._arrivals = itertools.count(1)

    def enter(self) -> None:
        """One more listens."""
        if next(self._entries) == self._size:
            self._pipe.send("ready")

    def arrive(self, payload: str) -> None:
        """One more has the message. May be called from many threads: counting is one step."""
        if next(self._arrivals) % self._size == 0:
            at = monotonic_ns()
            self._pipe.send((payload, at))


def tasks(dsn: str, size: int, tally: Tally) -> None:
    """AsyncHub: a subscription and a task for each."""

    async def subscriber(hub: pgpubsub.AsyncHub) -> None:
        async with hub.subscribe(CHANNEL) as events:
            tally.enter()
            async for event in events:
                tally.arrive("" if isinstance(event, pgpubsub.Gap) else event.payload)

    async def main() -> None:
        async with pgpubsub.AsyncHub(dsn) as hub, asyncio.TaskGroup() as group:
            for _ in range(size):
                group.create_task(subscriber(hub))

    asyncio.run(main())


def threads(dsn: str, size: int, tally: Tally) -> None:
    """Hub: a subscription and a thread for each."""

    def subscriber(hub: pgpubsub.Hub) -> None:
        with hub.subscribe(CHANNEL) as events:
            tally.enter()
            for event in events:
                tally.arrive("" if isinstance(event, pgpubsub.Gap) else event.payload)

    with pgpubsub.Hub(dsn) as hub:
        for _ in range(size):
            threading.Thread(target=subscriber, args=(hub,), daemon=True).start()
        threading.Event().wait()


def bare_tasks(dsn: str, size: int, tally: Tally) -> None:
    """What asyncio itself takes: a task for each, which waits for a future of its own and no more."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        waiting: list[asyncio.Future[str]] = []

        async def wait() -> None:
            tally.enter()
            while True:
                waiting.append(loop.create_future())
                tally.arrive(await waiting[-1])

        def wake() -> None:
            for payload in _arrived(pgconn):
                woken, waiting[:] = waiting[:], []
                for future in woken:
                    future.set_result(payload)

        with psycopg.connect(dsn, autocommit=True) as connection:
            pgconn = _listening(connection)
            loop.add_reader(pgconn.socket, wake)
            async with asyncio.TaskGroup() as group:
                for _ in range(size):
                    group.create_task(wait())

    asyncio.run(main())


def bare_threads(dsn: str, size: int, tally: Tally) -> None:
    """What Python itself takes: a thread for each, which waits for a queue of its own (in C) and no more."""
    queues = [SimpleQueue[str]() for _ in range(size)]

    def wait(queue: SimpleQueue[str]) -> None:
        while True:
            tally.arrive(queue.get())

    with psycopg.connect(dsn, autocommit=True) as connection:
        pgconn = _listening(connection)
        for queue in queues:
            threading.Thread(target=wait, args=(queue,), daemon=True).start()
            tally.enter()
        while select.select([pgconn.socket], [], []):
            for payload in _arrived(pgconn):
                for queue in queues:
                    queue.put(payload)


def _listening(connection: psycopg.Connection[Any]) -> pq.abc.PGconn:
    connection.execute(f"LISTEN {CHANNEL}".encode())
    connection.pgconn.notify_handler = None
    return connection.pgconn


def _arrived(pgconn: pq.abc.PGconn) -> Iterator[str]:
    pgconn.consume_input()
    while record := pgconn.notifies():
        yield record.extra.decode()


@dataclass(frozen=True)
class Crew:
    """Who makes up a fleet: `man` has so many subscribers in this process, for ever."""

    man: Callable[[str, int, Tally], None]
    size: int | None = None
    """If it is not as many as wanted."""


class Fleet:
    """See the module."""

    def __init__(self, make: Callable[[], Crew], size: int) -> None:
        self._crew = make()
        self._size = self._crew.size or size
        self._stack = ExitStack()

    def start(self) -> None:
        """Return when everybody listens."""
        settings = {"max_connections": str(self._size + 20)}
        server = self._stack.enter_context(TemporaryServer(tcp=True, settings=settings))
        self._sender = self._stack.enter_context(Sender(server.dsn()))
        self._pipe = self._stack.enter_context(child(_man, self._crew.man, server.dsn(), self._size))
        assert self._pipe.recv() == "ready"

    def close(self) -> None:
        """End it all."""
        self._stack.close()

    def message(self) -> tuple[int, int]:
        """Send one: how many nanoseconds the call of `pg_notify` took, and from its beginning until all had it."""
        self._sender.begin(Stamp(CHANNEL))
        payload, at = self._pipe.recv()
        took = self._sender.finish()
        return took, at - int(payload)


def _man(man: Callable[[str, int, Tally], None], dsn: str, size: int, pipe: Pipe) -> None:
    _allow_files(size + 100)
    man(dsn, size, Tally(size, pipe))


def _allow_files(number: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(number, hard), hard))
