"""The ways to receive, made alike, so that the same cases run for each of them.

`Hub` is taken as it is. `AsyncHub` runs on a loop in a thread, where the loop runs all the time, and a blocking cover
hands every call over to it. `PubSub` gets the shape of a hub whose subscriptions each have a connection of their own.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import wait
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import psycopg
import uvloop

import pgpubsub
from pgpubsub import (
    AsyncHub,
    AsyncSubscription,
    Closed,
    Gap,
    Hub,
    HubState,
    HubStats,
    Notify,
    PubSub,
    SubscriptionClosed,
    SubscriptionStats,
)
from pgpubsub.core.buffer import Overflow

__all__ = [
    "ASYNC_KINDS",
    "HUB_KINDS",
    "RECEIVING_KINDS",
    "AnyHub",
    "Classic",
    "Covered",
    "CoveredEvents",
    "Events",
    "LoopInThread",
    "Worker",
    "closed_error",
    "last_statement",
    "listening_pid",
    "new_loop",
    "payloads",
    "take",
    "texts",
    "together",
    "unsettled",
]

T = TypeVar("T")

ASYNC_KINDS = ["AsyncHub on asyncio", "AsyncHub on uvloop"]
HUB_KINDS = ["Hub", *ASYNC_KINDS]
RECEIVING_KINDS = ["PubSub", *HUB_KINDS]

PATIENCE = 20.0
"""Seconds after which something hangs."""


class Events(Protocol):
    """A subscription."""

    @property
    def channels(self) -> frozenset[str]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def __iter__(self) -> Iterator[Notify | Gap]: ...
    def __next__(self) -> Notify | Gap: ...
    def get(self, timeout: float | None = None) -> Notify | Gap: ...
    def get_nowait(self) -> Notify | Gap | None: ...
    def add(self, channel: Any) -> None: ...
    def remove(self, channel: Any) -> None: ...
    def close(self) -> None: ...
    def stats(self) -> SubscriptionStats: ...


class AnyHub(Protocol):
    """A hub."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def subscribe(
        self, *channels: Any, capacity: int = 1000, capacity_bytes: int = 64 << 20, overflow: Overflow = "clear"
    ) -> Events: ...
    def notify(self, channel: Any, payload: Any = "") -> None: ...
    def notify_many(self, pairs: Iterable[Any]) -> int: ...
    def notify_stream(self, pairs: Iterable[Any], *, on_progress: Callable[[int], object] | None = None) -> int: ...
    @property
    def state(self) -> HubState: ...
    def wait_until_live(self, timeout: float | None = None) -> None: ...
    def stats(self) -> HubStats: ...
    def close(self, timeout: float = 5.0) -> None: ...


# -- AsyncHub


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """An event loop, as the name of the kind says."""
    return uvloop.new_event_loop() if "uvloop" in kind else asyncio.SelectorEventLoop()


class LoopInThread:
    """A loop that runs all the time. Whatever it reports as an error fails the test."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.errors: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self._thread = threading.Thread(target=loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What becomes of `coroutine` there."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        wait([future], PATIENCE)
        assert future.done(), "it hangs"
        return future.result()

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """What becomes of a plain function there."""

        async def called() -> T:
            return function(*args)

        return self.run(called())

    def end(self) -> None:
        """Stop it, and see that nothing has been left behind."""

        async def left() -> set[asyncio.Task[Any]]:
            return asyncio.all_tasks() - {asyncio.current_task()}

        remaining = self.run(left())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self.loop.close()
        assert not remaining
        assert not self.errors


class Covered:
    """An `AsyncHub`, as if it were blocking."""

    def __init__(self, hub: AsyncHub, loop: LoopInThread) -> None:
        self.hub = hub
        self.loop = loop

    def __enter__(self) -> Self:
        self.loop.run(self.hub.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.loop.run(self.hub.__aexit__(kind, error, traceback))

    def __repr__(self) -> str:
        return repr(self.hub)

    def subscribe(
        self, *channels: Any, capacity: int = 1000, capacity_bytes: int = 64 << 20, overflow: Overflow = "clear"
    ) -> CoveredEvents:
        events = self.hub.subscribe(*channels, capacity=capacity, capacity_bytes=capacity_bytes, overflow=overflow)
        return CoveredEvents(events, self.loop)

    def notify(self, channel: Any, payload: Any = "") -> None:
        self.loop.run(self.hub.notify(channel, payload))

    def notify_many(self, pairs: Iterable[Any]) -> int:
        return self.loop.run(self.hub.notify_many(pairs))

    def notify_stream(self, pairs: Iterable[Any], *, on_progress: Callable[[int], object] | None = None) -> int:
        return self.loop.run(self.hub.notify_stream(pairs, on_progress=on_progress))

    @property
    def state(self) -> HubState:
        return self.loop.call(lambda: self.hub.state)

    def wait_until_live(self, timeout: float | None = None) -> None:
        self.loop.run(self.hub.wait_until_live(timeout))

    def stats(self) -> HubStats:
        return self.loop.call(self.hub.stats)

    def close(self, timeout: float = 5.0) -> None:
        self.loop.run(self.hub.close(timeout))


class CoveredEvents:
    """An `AsyncSubscription`, as if it were blocking."""

    def __init__(self, events: AsyncSubscription, loop: LoopInThread) -> None:
        self.events = events
        self.loop = loop

    def __enter__(self) -> Self:
        self.loop.run(self.events.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.loop.run(self.events.__aexit__(kind, error, traceback))

    def __repr__(self) -> str:
        return repr(self.events)

    @property
    def channels(self) -> frozenset[str]:
        return self.loop.call(lambda: self.events.channels)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Notify | Gap:
        async def following() -> Notify | Gap | None:
            async for event in self.events:
                return event
            return None

        event = self.loop.run(following())
        if event is None:
            raise StopIteration
        return event

    def get(self, timeout: float | None = None) -> Notify | Gap:
        return self.loop.run(self.events.get(timeout))

    def get_nowait(self) -> Notify | Gap | None:
        return self.loop.call(self.events.get_nowait)

    def add(self, channel: Any) -> None:
        self.loop.run(self.events.add(channel))

    def remove(self, channel: Any) -> None:
        self.loop.run(self.events.remove(channel))

    def close(self) -> None:
        self.loop.call(self.events.close)

    def stats(self) -> SubscriptionStats:
        return self.loop.call(self.events.stats)


# -- PubSub


class Classic:
    """`PubSub`, in so far as it has the same notions."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._sender = pgpubsub.connect(dsn)

    def subscribe(self, *channels: Any) -> ClassicEvents:
        return ClassicEvents(self._dsn, channels)

    def notify(self, channel: Any, payload: Any = "") -> None:
        self._sender.notify(channel, payload)

    def close(self) -> None:
        self._sender.close()


class ClassicEvents:
    """A `PubSub` that receives."""

    def __init__(self, dsn: str, channels: Iterable[Any]) -> None:
        self._dsn = dsn
        self._initial = channels
        self.pubsub: PubSub | None = None

    def __enter__(self) -> Self:
        self.pubsub = pgpubsub.connect(self._dsn)
        self._iteration = self.pubsub.events(select_timeout=None, yield_gaps=True)
        try:
            for channel in self._initial:
                self.pubsub.listen(channel)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _open(self) -> PubSub:
        assert self.pubsub is not None
        return self.pubsub

    @property
    def channels(self) -> frozenset[str]:
        return self._open.channels

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Notify | Gap:
        event = next(self._iteration)
        assert event is not None
        return event

    def get(self, timeout: float | None = None) -> Notify | Gap:
        event = self._open.get_event(timeout, yield_gaps=True)
        if event is None:  # which is its way to say so
            raise TimeoutError
        return event

    def get_nowait(self) -> Notify | Gap | None:
        return self._open.get_event(yield_gaps=True)

    def add(self, channel: Any) -> None:
        self._open.listen(channel)

    def remove(self, channel: Any) -> None:
        self._open.unlisten(channel)

    def close(self) -> None:
        self._open.close()

    def stats(self) -> SubscriptionStats:
        raise NotImplementedError


def closed_error(kind: str) -> type[Closed]:
    """What `get` raises after closing."""
    return Closed if kind == "PubSub" else SubscriptionClosed


# -- sending


def unsettled(hub: AnyHub | AsyncHub) -> int:
    """How many calls a hub was given to send, and has not told the outcome of. `AsyncHub` is asked in its loop."""
    if isinstance(hub, Covered):
        return hub.loop.call(unsettled, hub.hub)
    assert isinstance(hub, Hub | AsyncHub)
    core = hub._engine._sender._core

    def count() -> int:
        flying = core.in_flight.calls if core.in_flight is not None else ()
        return sum(not call.told for call in (*flying, *core._waiting))

    async def counted() -> int:
        return count()

    return hub._running_thread().call(counted) if isinstance(hub, Hub) else count()


# -- receiving, and doing several things at once


def take(events: Events, count: int) -> list[Notify | Gap]:
    """The next events."""
    return [events.get(PATIENCE) for _ in range(count)]


def texts(events: Iterable[Notify | Gap]) -> list[tuple[str, str]]:
    """Their channels and payloads; there may be no gap."""
    found = []
    for event in events:
        assert isinstance(event, Notify), event
        found.append((event.channel, event.payload))
    return found


def payloads(events: Iterable[Notify | Gap]) -> list[str]:
    """What they say; there may be no gap."""
    return [payload for _, payload in texts(events)]


class Worker:
    """Something that another thread does."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome: object = self._function()
        except BaseException as error:
            self._outcome = error

    @property
    def busy(self) -> bool:
        """Whether it is not done."""
        return self._thread.is_alive()

    def outcome(self) -> Any:
        """What it returned or raised."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "it hangs"
        return self._outcome


def together(functions: Iterable[Callable[[], object]]) -> list[Any]:
    """Do all of it at once. Returns what each returned or raised."""
    return [worker.outcome() for worker in [Worker(function) for function in functions]]


# -- what the server knows


def listening_pid(admin: psycopg.Connection[Any]) -> int:
    """The one backend that listens for a hub of this process, once those of hubs closed before it are gone."""
    name = f"pgpubsub listen {os.getpid()}@%"
    deadline = time.monotonic() + PATIENCE
    while True:
        rows = admin.execute("SELECT pid FROM pg_stat_activity WHERE application_name LIKE %s", [name]).fetchall()
        if len(rows) == 1:
            return int(rows[0][0])
        assert time.monotonic() < deadline, f"{len(rows)} backends listen"
        time.sleep(0.001)


def last_statement(admin: psycopg.Connection[Any], pid: int) -> str:
    """What a backend has executed last, or executes."""
    row = admin.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()
    return str(row[0]) if row else ""
