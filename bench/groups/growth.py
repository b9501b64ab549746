"""What becomes of a contestant when much has gone through its tables, and when a transaction is open all that time, so
that no dead row can be removed: each beside itself with empty tables, in the same round.

What goes through is handled by the contestant itself, in batches of 100, but without waiting for the disk.
Those who are slow are given up after a while: less has gone through then.
"""

from __future__ import annotations

import faulthandler
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from bench.contestants import Contestant
from bench.ground import Effort, Ground
from bench.groups.called import BEHIND, steady
from bench.groups.handled import long_enough
from bench.groups.ways import Way
from bench.groups.yard import Yard, yard
from bench.rounds import Figures

__all__ = ["BATCHES", "PASSED", "Aged", "Growth", "passed", "rate"]

LONGEST = 7200
"""Seconds in which all has gone through."""

SLOWEST = 10_000
"""Entries per second below which not all goes through."""

BATCHES = (1, 100)
PASSED = "passed"
"""The figure that says how many have."""


def passed(effort: Effort) -> int:
    """How many go through."""
    return max((effort.stored // 5, *effort.stored_too)) // 2


def rate(batch: int) -> str:
    """The name of the figure: how many are handled per second in batches of so many, beside empty tables."""
    return f"rate in batches of {batch}, to new"


@dataclass(frozen=True)
class Aged:
    """One contestant whose tables have seen much."""

    name: str
    """Of the contestant."""
    way: Way
    held: bool
    """Whether a transaction was open all the time."""

    @property
    def database(self) -> str:
        """The name of its own."""
        return f"{self.name}{', held' if self.held else ', passed'}"


@dataclass(frozen=True)
class Growth:
    """A `Measurement` in which the contestants take turns, in an order that is shuffled each time."""

    name: str
    contestants: Sequence[Contestant[Aged]]
    most_rounds: int | None = None

    def play(self, ground: Ground) -> Mapping[str, Figures]:
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        place = yard(ground)
        aged = {contestant.name: contestant.make() for contestant in self.contestants}
        ways = {one.name: one.way for one in aged.values()}
        found: dict[str, Figures] = {contestant.name: {} for contestant in self.contestants}
        for name in random.sample([*ways], len(ways)):
            place.dsn(name)
            new = _figures(place, ways[name], name, ground, clear=True)
            for contestant, one in aged.items():
                if one.name == name:
                    through = _pass_through(place, one, passed(ground.effort))
                    old = _figures(place, one.way, one.database, ground, clear=False)
                    ratios = {f"{figure}, to new": old[figure] / new[figure] for figure in new if figure != BEHIND}
                    behind = max(old[BEHIND], new[BEHIND])
                    found[contestant] = {**old, **ratios, BEHIND: behind, PASSED: through}
        return found

    def among(self, contestants: Sequence[Contestant[Any]]) -> Self:
        return replace(self, contestants=contestants)


def _pass_through(place: Yard, one: Aged, count: int) -> int:
    """How many have gone through, now or before."""
    place.dsn(one.database, held=one.held)
    return place.pass_through(one.way, one.database, count, count / SLOWEST)


def _figures(place: Yard, way: Way, name: str, ground: Ground, *, clear: bool) -> Figures:
    found: dict[str, float] = {}
    for batch in BATCHES:
        found[f"rate in batches of {batch}"] = place.rate(way, name, 1, batch, long_enough(ground), clear=clear)
    if clear:
        place.clear(way, name)
    return {**found, **steady(way, place.dsn(name), ground)}
