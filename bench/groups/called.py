"""From an append in this process to the handler in another: appends begin at a given rate, whatever becomes of those
before. The clock runs from just before the call until the handler is called, on the other side."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from time import monotonic_ns
from typing import Any, Self

from bench.carrying import Append, Desk
from bench.child import Pipe, child
from bench.contestants import Contestant
from bench.ground import Ground
from bench.groups.ways import Way
from bench.groups.yard import settle, yard
from bench.rounds import Figures, falls_behind, latency

__all__ = ["BEHIND", "RATE", "Called", "steady"]

LONGEST = 600
RATE = 500
"""Appends per second."""

BEHIND = "behind"
"""The figure that says that it could not keep up."""

WARM_UP = 100
"""Entries before the clock starts, at the same rate."""

PATIENCE = 6
"""Seconds without anything after which what has not come is taken to be lost; longer than anybody's poll interval."""

_numbers = count()


@dataclass(frozen=True)
class Called:
    """A `Measurement` in which the contestants take turns, in an order that is shuffled each time."""

    name: str
    contestants: Sequence[Contestant[Way]]
    most_rounds: int | None = None

    def play(self, ground: Ground) -> Mapping[str, Figures]:
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        place = yard(ground)
        found: dict[str, Figures] = {contestant.name: {} for contestant in self.contestants}
        for contestant in random.sample(self.contestants, len(self.contestants)):
            way, dsn = contestant.make(), place.dsn(contestant.name)
            place.clear(way, contestant.name)
            found[contestant.name] = steady(way, dsn, ground)
        return found

    def among(self, contestants: Sequence[Contestant[Any]]) -> Self:
        return replace(self, contestants=contestants)


def steady(way: Way, dsn: str, ground: Ground) -> Figures:
    """How long it takes, for a while."""
    seconds = 2 * max(ground.effort.arriving.values())
    gc.collect()
    with child(_take, way.take, dsn) as pipe:
        assert pipe.recv() == "ready"
        figures = asyncio.run(_steady(way, dsn, pipe, round(RATE * seconds)))
        settle(way.queue, dsn)  # what it has in hand when it is ended would come to the next
        return figures


def _take(take: Callable[[str, Desk], None], dsn: str, pipe: Pipe) -> None:
    take(dsn, Desk(pipe))


async def _steady(way: Way, dsn: str, pipe: Pipe, number: int) -> Figures:
    called: dict[str, int] = {}
    async with way.sends(dsn) as append:
        await _append(WARM_UP + number, append, called)
        await asyncio.to_thread(pipe.send, (min(called), len(called), PATIENCE))
        came = dict(await asyncio.to_thread(pipe.recv))
    lost = [payload for payload in called if payload not in came]
    assert not lost, f"{len(lost)} of {len(called)} have not come"
    figures = latency([came[payload] - at for payload, at in [*called.items()][WARM_UP:]])
    return {**figures, BEHIND: falls_behind(figures["p50_us"] / 1e6, number / RATE)}


async def _append(number: int, append: Append, called: dict[str, int]) -> None:
    """Note when each is called."""

    async def one(payload: str) -> None:
        called[payload] = monotonic_ns()
        await append(payload)

    loop = asyncio.get_running_loop()
    start, tasks = loop.time(), []
    for index in range(number):
        if (pause := start + index / RATE - loop.time()) > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(one(f"{next(_numbers):040}")))
    await asyncio.gather(*tasks)
