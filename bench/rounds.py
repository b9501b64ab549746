"""Everybody's turns, one after the other, again and again.

In a round each contestant has a few turns, which are short, so that a phase in which the machine is slow hits
several contestants; and the figures are of all of its turns in the round together.
"""

from __future__ import annotations

import faulthandler
import gc
import random
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from time import monotonic
from typing import Any, Protocol, Self

from bench.contestants import Contestant
from bench.ground import Ground
from bench.turns import Cost

__all__ = [
    "Figures",
    "InTurns",
    "Measurement",
    "Played",
    "Round",
    "Together",
    "falls_behind",
    "latency",
    "play",
    "throughput",
]

LONGEST = 120
"""Seconds after which a measurement is taken to hang; the program then ends with a traceback."""

Figures = Mapping[str, float]

Round = Mapping[str, Mapping[str, Figures]]
"""By measurement and contestant."""

Make = Callable[[], Any]


class Measurement(Protocol):
    """What the contestants do in a round, and the figures that this gives."""

    @property
    def name(self) -> str:
        """Its part of the benchmark and its own, such as `hub-wake`."""

    @property
    def contestants(self) -> Sequence[Contestant[Any]]:
        """Who takes part."""

    @property
    def most_rounds(self) -> int | None:
        """In how many rounds it takes place at most."""

    def play(self, ground: Ground) -> Mapping[str, Figures]:
        """Everybody's figures in one round."""

    def among(self, contestants: Sequence[Contestant[Any]]) -> Self:
        """The same with these contestants."""


@dataclass(frozen=True)
class InTurns:
    """A `Measurement` in which the contestants take turns, in an order that is shuffled each time."""

    name: str
    turn: Callable[[Make, Ground], Sequence[Any]]
    turns: int
    figures: Callable[[Sequence[Any]], Figures]
    contestants: Sequence[Contestant[Any]]
    most_rounds: int | None = None

    def play(self, ground: Ground) -> Mapping[str, Figures]:
        samples: dict[str, list[Any]] = {contestant.name: [] for contestant in self.contestants}
        for _ in range(self.turns):
            for contestant in random.sample(self.contestants, len(self.contestants)):
                samples[contestant.name] += self.turn(contestant.make, ground)
        return {name: self.figures(of_one) for name, of_one in samples.items()}

    def among(self, contestants: Sequence[Contestant[Any]]) -> Self:
        return replace(self, contestants=contestants)


@dataclass(frozen=True)
class Together:
    """A `Measurement` that arranges by itself when it is whose turn."""

    name: str
    act: Callable[[Sequence[Make], Ground], Sequence[Figures]]
    contestants: Sequence[Contestant[Any]]
    most_rounds: int | None = None

    def play(self, ground: Ground) -> Mapping[str, Figures]:
        figures = self.act([contestant.make for contestant in self.contestants], ground)
        return {contestant.name: of_one for contestant, of_one in zip(self.contestants, figures, strict=True)}

    def among(self, contestants: Sequence[Contestant[Any]]) -> Self:
        return replace(self, contestants=contestants)


@dataclass(frozen=True)
class Played:
    """What became of all rounds."""

    rounds: list[Round] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """That each measurement took."""
    failures: dict[str, str] = field(default_factory=dict)
    """By measurement: what was raised. It takes place no more then."""


def play(measurements: Iterable[Measurement], ground: Ground, on_round: Callable[[int], None]) -> Played:
    """Play all rounds."""
    gc.collect()
    gc.freeze()  # what is there already concerns nobody; each turn begins by collecting what others left behind
    played = Played()
    for number in range(1, ground.effort.rounds + 1):
        figures: dict[str, Mapping[str, Figures]] = {}
        for one in measurements:
            if one.name not in played.failures and (one.most_rounds is None or number <= one.most_rounds):
                _play(one, ground, figures, played)
        played.rounds.append(figures)
        on_round(number)
    faulthandler.cancel_dump_traceback_later()
    return played


def _play(one: Measurement, ground: Ground, figures: dict[str, Mapping[str, Figures]], played: Played) -> None:
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    start = monotonic()
    try:
        figures[one.name] = one.play(ground)
    except Exception as error:  # an hour's other figures are not to be lost for it
        traceback.print_exc()
        played.failures[one.name] = repr(error)
    played.seconds[one.name] = played.seconds.get(one.name, 0) + monotonic() - start


def throughput(costs: Sequence[Cost]) -> Figures:
    """Notifications per second, and microseconds of CPU time per notification."""
    return {
        "per_second": 1e9 / fmean(cost.wall for cost in costs),
        "cpu_us": fmean(cost.cpu for cost in costs) / 1000,
    }


def latency(samples: Sequence[int]) -> Figures:
    """The median and the 99th percentile, in microseconds.

    >>> latency(range(1000, 101_000, 1000))
    {'p50_us': 50.0, 'p99_us': 99.0}
    """
    ordered = sorted(samples)
    return {f"p{percent}_us": ordered[-(-len(ordered) * percent // 100) - 1] / 1000 for percent in (50, 99)}


def falls_behind(half: float, sending: float) -> float:
    """1 if a contestant could not keep up with a steady rate, or else 0.

    Who carries less than is sent has a backlog that grows until all is sent: the delay then says how long that went on.
    If delays grow evenly, half of them are above a quarter of that time where less than two thirds of it are carried.

    Args:
        half: seconds that half of the messages took at most.
        sending: seconds in which all were sent.

    >>> falls_behind(0.3, 2), falls_behind(0.6, 2)
    (0.0, 1.0)
    """
    return float(half > sending / 4)
