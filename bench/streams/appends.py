"""How many appends are committed per second, for several numbers of callers, each over the numbers of connections that
may suit it, of which the best counts."""

from __future__ import annotations

import faulthandler
import gc
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Self

from bench.callers import WARM_UP, Called
from bench.contestants import Contestant, Role
from bench.ground import Ground
from bench.rounds import Figures
from bench.streams.places import on_disk

__all__ = ["Appends", "figure"]

LONGEST = 300
"""Seconds in which everybody's turns of a round come to an end."""


@dataclass(frozen=True)
class Appends:
    """A `Measurement` in which the contestants take turns, in an order that is shuffled each time."""

    name: str
    disk: str
    sizes: Mapping[int, Sequence[int]]
    """For each number of callers, the numbers of connections to try."""
    contestants: Sequence[Contestant[Called]]
    most_rounds: int | None = None

    def play(self, ground: Ground) -> Mapping[str, Figures]:
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        dsn = on_disk(self.disk, ground)
        every = sorted({size for sizes in self.sizes.values() for size in sizes})
        ours = {one.name for one in self.contestants if one.role is Role.SUBJECT}  # which have their own connections
        turns = [(one, size) for one in self.contestants for size in (every[:1] if one.name in ours else every)]
        found: dict[str, dict[str, float]] = {contestant.name: {} for contestant in self.contestants}
        for contestant, size in random.sample(turns, len(turns)):
            callers = [number for number, sizes in self.sizes.items() if contestant.name in ours or size in sizes]
            rates = _turn(contestant.make, dsn, size, callers, ground.effort.calling_seconds)
            figures = found[contestant.name]
            for number, rate in zip(callers, rates, strict=True):
                if contestant.name not in ours:
                    figures[f"{figure(number)}, {size} connections"] = rate
                figures[figure(number)] = max(rate, figures.get(figure(number), 0))
        return found

    def among(self, contestants: Sequence[Contestant[Any]]) -> Self:
        return replace(self, contestants=contestants)


def figure(callers: int) -> str:
    """The name of the figure for so many callers."""
    return f"{callers} at once"


def _turn(make: Callable[[], Called], dsn: str, size: int, callers: Iterable[int], seconds: float) -> Sequence[float]:
    """Committed appends per second, for each number of callers."""
    called = make()
    gc.collect()
    called.open(dsn, size)
    rates = []
    with closing(called):
        called.call(4 * size, 60, times=WARM_UP)
        for number in callers:
            calls = called.call(number, seconds)
            rates.append(1e9 * calls.completed / calls.took)
    return rates
