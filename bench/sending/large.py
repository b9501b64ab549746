"""Who carries a payload of a mebibyte from this process to another.

The clock runs from the call that sends until the receiver has the whole payload as a `str`. Each contestant has a
database of its own and a process that receives, both of which stay through all rounds; whoever sends connects anew in
each round, and sends a few times before it counts.

The server does not wait for the disk, which only the rows would have to: those are as fast here as they are with
`synchronous_commit` off elsewhere.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from statistics import median
from time import monotonic_ns
from typing import Protocol
from zlib import crc32

import psycopg

import pgpubsub
from bench.child import Pipe, child
from bench.ground import CHANNEL, Ground, database
from bench.rounds import Figures

__all__ = ["ASCII", "UNICODE", "AsyncHub", "Hub", "Way", "carry", "take", "take_async"]

PATIENCE = 30
WARM_UP = 2

ASCII = {"id": 17, "name": "Anna Larsson", "street": "Storgatan 3", "tags": ["new", "express"], "total": 129.5}
UNICODE = {
    "id": 17,
    "name": "山田花子",
    "street": "千代田区丸の内一丁目",
    "tags": ["новый", "prioritaire é"],
    "total": 129.5,
}

_numbers = count()


class Desk:
    """In the receiver's process: tells when it has a payload."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def open(self) -> None:
        """The receiver listens."""
        self._pipe.send("listening")

    def take(self, payload: str) -> None:
        """It has `payload`."""
        at = monotonic_ns()
        self._pipe.send((at, crc32(payload.encode())))


class Sending(Protocol):
    """Sends one payload after the other."""

    def open(self, dsn: str) -> None:
        """Connect."""

    def send(self, payload: str) -> None:
        """Send one to `CHANNEL`; return when it is committed."""

    def close(self) -> None:
        """Close the connection."""


@dataclass(frozen=True)
class Way:
    """Who sends, and who takes what comes, for ever."""

    send: Callable[[], Sending]
    take: Callable[[str, Desk], None]
    table: str = ""
    """What is to be created for it."""


class Line:
    """A way in its database."""

    def __init__(self, make: Callable[[], Way], server: str) -> None:
        self._way = make()
        self._server = server
        self._stack = ExitStack()

    def start(self) -> None:
        """Return when the receiver listens."""
        self._dsn = self._stack.enter_context(database(self._server, f"large_{next(_numbers)}"))
        if self._way.table:
            with psycopg.connect(self._dsn) as connection:
                connection.execute(self._way.table.encode())
        self._pipe = self._stack.enter_context(child(_receive, self._way.take, self._dsn))
        assert self._pipe.recv() == "listening"

    def close(self) -> None:
        """End it."""
        self._stack.close()

    def carry(self, payloads: Sequence[str]) -> list[int]:
        """How many nanoseconds each takes."""
        sending = self._way.send()
        gc.collect()
        sending.open(self._dsn)
        took = []
        with closing(sending):
            for payload in payloads:
                start = monotonic_ns()
                sending.send(payload)
                if not self._pipe.poll(PATIENCE):
                    raise TimeoutError(f"a payload did not arrive within {PATIENCE} s")
                at, checksum = self._pipe.recv()
                assert checksum == crc32(payload.encode()), "another payload arrived"
                took.append(at - start)
        return took


def carry(ways: Sequence[Callable[[], Way]], ground: Ground, record: object) -> list[Figures]:
    """One payload after the other, over each line in turn: the median and the longest, in milliseconds.

    Args:
        record: what the payloads are made of, as JSON.
    """
    lines = ground.keep([_line(way, ground.dsn) for way in ways])
    payloads = [_payload(number, record, ground.effort.large) for number in range(WARM_UP + ground.effort.messages)]
    took: list[list[int]] = [[] for _ in lines]
    for index in random.sample(range(len(lines)), len(lines)):
        took[index] = lines[index].carry(payloads)[WARM_UP:]
    return [{"ms": median(of_one) / 1e6, "slowest_ms": max(of_one) / 1e6} for of_one in took]


@cache
def _line(way: Callable[[], Way], server: str) -> Callable[[], Line]:
    return partial(Line, way, server)


def _payload(number: int, record: object, size: int) -> str:
    """JSON with so many bytes in UTF-8, cut off there; all are different."""
    one = json.dumps(record, ensure_ascii=False)
    text = f"[{number}, " + ", ".join([one] * (size // len(one.encode()) + 1))
    return text.encode()[:size].decode(errors="ignore")


def _receive(take: Callable[[str, Desk], None], dsn: str, pipe: Pipe) -> None:
    take(dsn, Desk(pipe))


class AsyncHub:
    """`await hub.notify()`."""

    def open(self, dsn: str) -> None:
        self._runner = asyncio.Runner()
        self._hub = self._runner.run(pgpubsub.AsyncHub(dsn).__aenter__())

    def send(self, payload: str) -> None:
        self._runner.run(self._hub.notify(CHANNEL, payload))

    def close(self) -> None:
        self._runner.run(self._hub.close())
        self._runner.close()


def take_async(dsn: str, desk: Desk) -> None:
    """`async for event in events`."""

    async def main() -> None:
        async with pgpubsub.AsyncHub(dsn) as hub, hub.subscribe(CHANNEL) as events:
            desk.open()
            async for event in events:
                assert isinstance(event, pgpubsub.Notify), event
                desk.take(event.payload)

    asyncio.run(main())


class Hub:
    """`hub.notify()`."""

    def open(self, dsn: str) -> None:
        self._hub = pgpubsub.Hub(dsn).__enter__()

    def send(self, payload: str) -> None:
        self._hub.notify(CHANNEL, payload)

    def close(self) -> None:
        self._hub.close()


def take(dsn: str, desk: Desk) -> None:
    """`for event in events`."""
    with pgpubsub.Hub(dsn) as hub, hub.subscribe(CHANNEL) as events:
        desk.open()
        for event in events:
            assert isinstance(event, pgpubsub.Notify), event
            desk.take(event.payload)
