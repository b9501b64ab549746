"""From an append in this process to its entry in another: appends begin at a given rate, whatever becomes of those
before. Two clocks run until the receiver has the entry: one from just before the call, and one from when the append
was acknowledged."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import count
from time import monotonic_ns
from typing import Any, Self

from bench.carrying import Append, Desk
from bench.child import Pipe, child
from bench.contestants import Contestant
from bench.ground import Ground, database
from bench.rounds import Figures, falls_behind, latency
from bench.streams.lines import Way
from bench.streams.places import on_disk, with_everything

__all__ = ["Arrivals", "behind", "figure"]

LONGEST = 300
WARM_UP = 50
"""Entries before the clock starts."""

AT_ONCE = 1000
"""Nanoseconds that stand for none: an entry may well arrive before whoever appended it comes to know."""

PATIENCE = 2
"""Seconds without anything after which what has not come is taken to be skipped: longer than a stream's poll interval,
by which what nobody was told of is found."""

_numbers = count()


class Receiver:
    """A database for one way, and a process that takes what comes, through all rounds."""

    def __init__(self, make: Callable[[], Way], server: str) -> None:
        self._take = make().take
        self._server = server
        self._stack = ExitStack()

    def start(self) -> None:
        """Return when it is ready."""
        self.dsn = self._stack.enter_context(database(self._server, f"line_{next(_numbers)}"))
        with_everything(self.dsn)
        self._pipe = self._stack.enter_context(child(_receive, self._take, self.dsn))
        assert self._pipe.recv() == "ready"

    def close(self) -> None:
        """End it."""
        self._stack.close()

    def came(self, first: str, expected: int) -> dict[str, int]:
        """What came since the last time, and when: once so much is there, from the payload `first` on, or nothing has
        come for a while."""
        self._pipe.send((first, expected, PATIENCE))
        return dict(self._pipe.recv())


@cache
def _receiver(make: Callable[[], Way], server: str) -> Callable[[], Receiver]:
    return partial(Receiver, make, server)


def _receive(take: Callable[[str, Desk], None], dsn: str, pipe: Pipe) -> None:
    take(dsn, Desk(pipe))


@dataclass(frozen=True)
class Arrivals:
    """A `Measurement` in which the contestants take turns, in an order that is shuffled each time."""

    name: str
    disk: str
    rates: Mapping[int, float]
    """Appends per second, and for how many seconds."""
    contestants: Sequence[Contestant[Way]]
    most_rounds: int | None = None

    def play(self, ground: Ground) -> Mapping[str, Figures]:
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        dsn = on_disk(self.disk, ground)
        receivers = ground.keep([_receiver(one.make, dsn) for one in self.contestants])
        found: dict[str, Figures] = {contestant.name: {} for contestant in self.contestants}
        for index in random.sample(range(len(receivers)), len(receivers)):
            contestant = self.contestants[index]
            gc.collect()
            found[contestant.name] = asyncio.run(self._turn(contestant.make(), receivers[index]))
        return {contestant.name: found[contestant.name] for contestant in self.contestants}

    def among(self, contestants: Sequence[Contestant[Any]]) -> Self:
        return replace(self, contestants=contestants)

    async def _turn(self, way: Way, receiver: Receiver) -> Figures:
        figures: dict[str, float] = {}
        async with way.sends(receiver.dsn) as append:
            for _ in range(WARM_UP):
                await append(payload := f"{next(_numbers):040}")
            await asyncio.to_thread(receiver.came, payload, 1)
            for rate, seconds in self.rates.items():
                called, acknowledged = await _append_at(rate, round(rate * seconds), append)
                came = await asyncio.to_thread(receiver.came, min(called), len(called))
                arrived = [payload for payload in called if payload in came]
                assert arrived, "nothing arrived"
                figures[f"skipped, {rate}/s"] = len(called) - len(arrived)
                figures[f"appended, {rate}/s"] = len(called)
                for since, times in (("call", called), ("commit", acknowledged)):
                    took = latency([max(AT_ONCE, came[payload] - times[payload]) for payload in arrived])
                    figures |= {figure(rate, since, percent): took[f"p{percent}_us"] for percent in (50, 99)}
                half = figures[figure(rate, "call", 50)] / 1e6
                figures[behind(rate)] = falls_behind(half, seconds)
        return figures


def figure(rate: int, since: str, percent: int) -> str:
    """The name of a figure."""
    return f"p{percent}_us at {rate}/s since {since}"


def behind(rate: int) -> str:
    """The name of the figure that says that it could not keep up."""
    return f"behind at {rate}/s"


async def _append_at(rate: int, number: int, append: Append) -> tuple[dict[str, int], dict[str, int]]:
    """When each append was called, and when it was acknowledged."""
    loop = asyncio.get_running_loop()
    called: dict[str, int] = {}
    acknowledged: dict[str, int] = {}

    async def one(payload: str) -> None:
        called[payload] = monotonic_ns()
        await append(payload)
        acknowledged[payload] = monotonic_ns()

    start = loop.time()
    tasks = []
    for index in range(number):
        if (pause := start + index / rate - loop.time()) > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(one(f"{next(_numbers):040}")))
    await asyncio.gather(*tasks)
    return called, acknowledged
