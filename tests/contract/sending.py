"""What tests of sending have in common: a gate before the server, and a listener that knows nothing of this package."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from pgpubsub import AsyncHub, Notify
from pgpubsub.core.frames import MAX_PAYLOAD, join
from pgpubsub.testing import Proxy
from tests.contract.faces import PATIENCE, AnyHub, Worker, unsettled

__all__ = [
    "Foreign",
    "Gate",
    "arrived",
    "begin",
    "begin_all",
    "in_flight",
    "numbered",
    "numbers",
    "sending_pids",
    "transactions",
    "wait_until",
    "words",
]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.0005)  # between two looks


class Gate(Proxy):
    """What a hub's sending connection leads through. While it is shut nothing comes through, and nobody is told."""

    @contextmanager
    def shut(self) -> Iterator[None]:
        self.deafen()
        try:
            yield
        finally:
            self.hear(resume=True)

    @contextmanager
    def hub(self, new_hub: Callable[..., AnyHub], dsn: str, **keywords: Any) -> Iterator[AnyHub]:
        """A hub that is live and sends through it. No heartbeat interferes: it has had the answer to its first."""
        with new_hub(dsn, notify_conninfo=self.dsn(), heartbeat=None, **keywords) as hub:
            wait_until(lambda: unsettled(hub) == 0)
            yield hub


class Foreign:
    """A connection of psycopg's that listens, and what came on it: text and the parts of messages as they are."""

    def __init__(self, dsn: str, *channels: str) -> None:
        self.events: list[psycopg.Notify] = []
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._connection.add_notify_handler(self.events.append)
        for channel in channels:
            self._connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    @property
    def pid(self) -> int:
        """The backend's."""
        return self._connection.info.backend_pid

    @property
    def payloads(self) -> list[str]:
        """What came, as it came."""
        return [event.payload for event in self.events]

    @property
    def joined(self) -> list[tuple[str, str]]:
        """Channels and texts of what came, put together."""
        events = [Notify(event.pid, event.channel, event.payload) for event in self.events]
        runs, partial = join(None, events, 2 * MAX_PAYLOAD)
        assert partial is None
        found = []
        for run in runs:
            assert isinstance(run, list), run
            found += [(event.channel, event.payload) for event in run]
        return found

    def look(self) -> None:
        """Take what the server has for us."""
        self._connection.execute("SELECT 1")

    def until(self, last: str) -> list[str]:
        """What came, when `last` has come."""
        deadline = time.monotonic() + PATIENCE
        while last not in self.payloads:
            assert time.monotonic() < deadline, "it did not come"
            self.look()
        return self.payloads


def transactions(admin: psycopg.Connection[Any]) -> int:
    """Grows by one with each transaction on this server that changes or notifies something: a NOTIFY takes an id."""
    row = admin.execute("SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text").fetchone()
    assert row is not None
    return int(row[0])


def sending_pids(admin: psycopg.Connection[Any]) -> list[int]:
    """The backends that send for hubs of this process."""
    name = f"pgpubsub notify {os.getpid()}@%"
    rows = admin.execute("SELECT pid FROM pg_stat_activity WHERE application_name LIKE %s", [name]).fetchall()
    return [row[0] for row in rows]


def begin(hub: AnyHub, call: Callable[[], object]) -> Worker:
    """Make a call in another thread, and go on when the hub has it."""
    before = unsettled(hub)
    worker = Worker(call)
    wait_until(lambda: unsettled(hub) > before)
    return worker


def begin_all(hub: AnyHub, channel: str, texts: Iterable[str]) -> list[Worker]:
    """Send, in this order, what cannot be sent at present."""
    return [begin(hub, partial(hub.notify, channel, text)) for text in texts]


def arrived(hub: AnyHub, channel: str, foreign: Foreign) -> list[str]:
    """The texts that have arrived by now; the hub is as good as ever."""
    hub.notify(channel, "end")
    foreign.until("end")
    return [payload for _, payload in foreign.joined][:-1]


async def in_flight(hub: AsyncHub, channel: str, text: str) -> asyncio.Task[None]:
    """The task that sends this, alone, when it has begun."""
    task = asyncio.create_task(hub.notify(channel, text))
    while hub._engine._sender._core.in_flight is None:
        await asyncio.sleep(0)
    return task


def words(count: int, word: str = "good") -> list[str]:
    return [f"{word} {number}" for number in range(count)]


def numbered(channel: str, count: int) -> list[tuple[str, str]]:
    return [(channel, str(number)) for number in range(count)]


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]
