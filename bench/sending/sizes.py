"""Everybody's turns in a round, with each number of connections that suits them, of which the best counts."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from bench.callers import Called
from bench.contestants import Contestant
from bench.ground import Ground
from bench.rounds import Figures

__all__ = ["InAllSizes"]

Turn = Callable[[Callable[[], Called], int, Ground], float]


@dataclass(frozen=True)
class InAllSizes:
    """A `Measurement` in which the contestants take turns, in an order that is shuffled each time. The figures are
    those of the best size in this round, and which that is."""

    name: str
    turn: Turn
    """Of a contestant with so many connections: calls per second."""
    contestants: Sequence[Contestant[Any]]
    most_rounds: int | None = None

    def play(self, ground: Ground) -> Mapping[str, Figures]:
        most = ground.effort.most_connections
        turns = [(one, size) for one in self.contestants for size in one.make().sizes if size <= most]
        rates: dict[str, dict[int, float]] = {contestant.name: {} for contestant in self.contestants}
        for contestant, size in random.sample(turns, len(turns)):
            rates[contestant.name][size] = self.turn(contestant.make, size, ground)
        return {name: _of_the_best(of_one) for name, of_one in rates.items()}

    def among(self, contestants: Sequence[Contestant[Any]]) -> Self:
        return replace(self, contestants=contestants)


def _of_the_best(rates: Mapping[int, float]) -> Figures:
    """
    >>> _of_the_best({1: 700.0, 4: 900.0})
    {'per_second': 900.0, 'connections': 4, 'per_second, 1': 700.0, 'per_second, 4': 900.0}
    """
    best = max(rates, key=rates.__getitem__)
    if len(rates) == 1:
        return {"per_second": rates[best]}
    return {"per_second": rates[best], "connections": best, **{f"per_second, {size}": rates[size] for size in rates}}
