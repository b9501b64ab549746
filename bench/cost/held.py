"""Who holds many of something: hubs, subscriptions, readers. Each is in a process of its own, which holds a
hundredth at first, for what is imported and allocated once, and lets them go; then it is weighed before and after it
holds them all."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

import psycopg

import pgpubsub
from bench.child import Pipe, child
from bench.ground import CHANNEL, QUEUE, Ground, database
from bench.peers import asyncpg, asyncpg_listen, broadcaster, sqlspec
from bench.processes import resident
from bench.rounds import Figures
from bench.streams.places import with_streams

__all__ = [
    "BROADCASTS",
    "BROADCASTS_SUBSCRIBED",
    "CONNECTIONS",
    "EVENT_CHANNELS",
    "HUBS",
    "LISTENERS",
    "READERS",
    "SUBSCRIPTIONS",
    "Blocking",
    "Held",
    "Holder",
    "ListenedTo",
    "hold",
    "read",
    "sessions",
    "subscribe",
    "subscribe_to_one",
    "subscriptions",
]

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

Weigh: TypeAlias = Callable[[], None]


class Holder(Protocol):
    """Holds so many of something."""

    def hold(self, dsn: str, count: int, weigh: Weigh) -> None:
        """Have the process weighed before, and again when it holds them all."""


def hold(makes: Sequence[Callable[[], Holder]], ground: Ground, *, count: int) -> list[Figures]:
    """One after the other: KiB of each, MiB of 10,000, and connections of all together."""
    return [_grow(make(), ground, count, index) for index, make in enumerate(makes)]


def sessions(dsn: str) -> float:
    """Connections to a database."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(SESSIONS).fetchone()
    assert row is not None
    return float(row[0])


def _grow(holder: Holder, ground: Ground, count: int, index: int) -> Figures:
    with ExitStack() as stack:
        dsn = stack.enter_context(database(ground.dsn, f"held_{index}"))
        with_streams(dsn)
        pipe = stack.enter_context(child(_hold, holder, dsn, count))
        before, after = int(pipe.recv()), int(pipe.recv())
        grown = max(1024, after - before)
        return {
            "kib": grown / count / 1024,
            "mib": grown / 2**20 * 10_000 / count,
            "connections": sessions(dsn),
        }


def _hold(holder: Holder, dsn: str, count: int, pipe: Pipe) -> None:
    holder.hold(dsn, max(1, count // 100), lambda: None)
    weighed = []

    def weigh() -> None:
        gc.collect()
        weighed.append(resident(os.getpid()))
        pipe.send(weighed[-1])
        if len(weighed) > 1:
            with suppress(EOFError):  # this is the end
                pipe.recv()

    holder.hold(dsn, count, weigh)


@dataclass(frozen=True)
class Held:
    """Things that are entered one by one, in an event loop, in something that is there before."""

    within: Callable[[str], AbstractAsyncContextManager[Any]]
    """By a DSN."""
    enter: Callable[[AsyncExitStack, Any, int], Awaitable[object]]
    """One, by what is there and a number."""
    at_once: int = 100

    def hold(self, dsn: str, count: int, weigh: Weigh) -> None:
        asyncio.run(self._hold(dsn, count, weigh))

    async def _hold(self, dsn: str, count: int, weigh: Weigh) -> None:
        async with self.within(dsn) as there, AsyncExitStack() as stack:
            weigh()
            for start in range(0, count, self.at_once):
                numbers = range(start, min(count, start + self.at_once))
                await asyncio.gather(*[self.enter(stack, there, number) for number in numbers])
            await asyncio.sleep(0)
            weigh()


@dataclass(frozen=True)
class Blocking:
    """What a `Hub` gives, without threads that wait; or, if nothing is to be entered, hubs."""

    enter: Callable[[pgpubsub.Hub, int], Any] | None = None

    def hold(self, dsn: str, count: int, weigh: Weigh) -> None:
        with ExitStack() as stack:
            hub = stack.enter_context(pgpubsub.Hub(dsn)) if self.enter else None
            weigh()
            for number in range(count):
                made = self.enter(hub, number) if self.enter and hub else pgpubsub.Hub(dsn)
                stack.enter_context(made)
            weigh()


class ListenedTo:
    """Channels of asyncpg-listen, which takes all of them at once."""

    def hold(self, dsn: str, count: int, weigh: Weigh) -> None:
        async def main() -> None:
            weigh()
            task, _ = await asyncpg_listen.listening(dsn, [_name(number) for number in range(count)], _nothing)
            weigh()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(main())


async def _nothing(*_: object) -> None:
    pass


@asynccontextmanager
async def _by_itself(dsn: str) -> AsyncIterator[str]:
    yield dsn


def _name(number: int) -> str:
    return f"{CHANNEL}_{number}"


async def _open_hub(stack: AsyncExitStack, dsn: str, _: int) -> None:
    await stack.enter_async_context(pgpubsub.AsyncHub(dsn))


async def _connect(stack: AsyncExitStack, dsn: str, _: int) -> None:
    connection = await asyncpg.connect(dsn)
    stack.callback(connection.terminate)
    await connection.add_listener(CHANNEL, lambda *_: None)


async def _connect_broadcast(stack: AsyncExitStack, dsn: str, _: int) -> None:
    broadcast = await broadcaster.connect(dsn)
    stack.push_async_callback(broadcast.disconnect)
    await stack.enter_async_context(broadcast.subscribe(CHANNEL))


async def _listen(stack: AsyncExitStack, dsn: str, _: int) -> None:
    task, connection = await asyncpg_listen.listening(dsn, [CHANNEL], _nothing)
    stack.callback(connection.terminate)
    stack.callback(task.cancel)


async def _open_events(stack: AsyncExitStack, dsn: str, _: int) -> None:
    config, events = sqlspec.opened(dsn)
    stack.push_async_callback(config.close_pool)
    stack.push_async_callback(events.shutdown)
    listener = await sqlspec.listening(events, CHANNEL, _nothing)
    stack.push_async_callback(events.stop_listener, listener.id)


def subscriptions(*, one_channel: bool, waiting: bool = False) -> Held:
    """Of an `AsyncHub`. `waiting`: a task waits for each."""
    return Held(pgpubsub.AsyncHub, partial(_enter, one_channel=one_channel, waiting=waiting))


async def _enter(
    stack: AsyncExitStack, hub: pgpubsub.AsyncHub, number: int, *, one_channel: bool, waiting: bool
) -> None:
    events = await stack.enter_async_context(hub.subscribe(CHANNEL if one_channel else _name(number)))
    if waiting:
        stack.callback(asyncio.create_task(_wait(events)).cancel)


async def _wait(events: Any) -> None:
    with suppress(pgpubsub.SubscriptionClosed):
        await events.get()


async def _read(stack: AsyncExitStack, hub: pgpubsub.AsyncHub, _: int) -> None:
    await stack.enter_async_context(hub.stream(QUEUE).read(after=pgpubsub.END))


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        connection.terminate()


async def _add_listener(_: AsyncExitStack, connection: Any, number: int) -> None:
    await connection.add_listener(_name(number), lambda *_: None)


@asynccontextmanager
async def _broadcasting(dsn: str) -> AsyncIterator[Any]:
    broadcast = await broadcaster.connect(dsn)
    try:
        yield broadcast
    finally:
        await broadcast.disconnect()


async def _subscribe(stack: AsyncExitStack, broadcast: Any, number: int) -> None:
    await stack.enter_async_context(broadcast.subscribe(_name(number)))


HUBS = Held(_by_itself, _open_hub, at_once=10)
CONNECTIONS = Held(_by_itself, _connect, at_once=10)
BROADCASTS = Held(_by_itself, _connect_broadcast, at_once=10)
LISTENERS = Held(_by_itself, _listen, at_once=10)
EVENT_CHANNELS = Held(_by_itself, _open_events, at_once=10)
SUBSCRIPTIONS = Held(_connected, _add_listener, at_once=1)
BROADCASTS_SUBSCRIBED = Held(_broadcasting, _subscribe, at_once=1)
READERS = Held(pgpubsub.AsyncHub, _read)


def subscribe(hub: pgpubsub.Hub, number: int) -> Any:
    """A channel for each."""
    return hub.subscribe(_name(number))


def subscribe_to_one(hub: pgpubsub.Hub, _: int) -> Any:
    """All on one channel."""
    return hub.subscribe(CHANNEL)


def read(hub: pgpubsub.Hub, _: int) -> Any:
    """All of one stream."""
    return hub.stream(QUEUE).read(after=pgpubsub.END)
