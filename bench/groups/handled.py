"""How many entries are acknowledged per second, by so many members in batches of so many."""

from __future__ import annotations

import faulthandler
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from bench.contestants import Contestant
from bench.ground import Ground
from bench.groups.ways import Way
from bench.groups.yard import yard
from bench.rounds import Figures

__all__ = ["RATE", "Handled", "long_enough"]

LONGEST = 1200
"""Seconds in which everybody's turns of a round come to an end."""

RATE = "per_second"


def long_enough(ground: Ground) -> float:
    """About how many seconds a turn takes."""
    return 5 * ground.effort.calling_seconds


@dataclass(frozen=True)
class Handled:
    """A `Measurement` in which the contestants take turns, in an order that is shuffled each time."""

    name: str
    members: int
    batch: int
    contestants: Sequence[Contestant[Way]]
    most_rounds: int | None = None

    def play(self, ground: Ground) -> Mapping[str, Figures]:
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        place = yard(ground)
        found: dict[str, Figures] = {contestant.name: {} for contestant in self.contestants}
        for contestant in random.sample(self.contestants, len(self.contestants)):
            name = contestant.name
            place.dsn(name)
            rate = place.rate(contestant.make(), name, self.members, self.batch, long_enough(ground))
            found[name] = {RATE: rate}
        return found

    def among(self, contestants: Sequence[Contestant[Any]]) -> Self:
        return replace(self, contestants=contestants)
