"""Everybody's turns, one after the other, again and again.

In a round each contestant has a few turns, which are short, so that a phase in which the machine is slow hits
several contestants; and the figures are of all of its turns in the round together.
"""

from __future__ import annotations

import faulthandler
import gc
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from bench.contestants import Contestant
from bench.turns import Cost, Ground

__all__ = ["Measurement", "Round", "latency", "play", "throughput"]

LONGEST_ROUND = 60
"""Seconds after which a round is taken to hang; the program then ends with a traceback."""

Figures = Mapping[str, float]

Round = Mapping[str, Mapping[str, Figures]]
"""By measurement and contestant."""


@dataclass(frozen=True)
class Measurement:
    """What the contestants do in a turn, how often, and the figures that this gives."""

    name: str
    turn: Callable[[Callable[[], Any], Ground], Sequence[Any]]
    turns: int
    figures: Callable[[Sequence[Any]], Figures]
    contestants: Sequence[Contestant[Any]]


def play(measurements: Iterable[Measurement], ground: Ground, on_round: Callable[[int], None]) -> list[Round]:
    """Play all rounds."""
    gc.collect()
    gc.freeze()  # what is there already concerns nobody; each turn begins by collecting what others left behind
    rounds: list[Round] = []
    for number in range(1, ground.effort.rounds + 1):
        faulthandler.dump_traceback_later(LONGEST_ROUND, exit=True)
        rounds.append({measurement.name: _play_one(measurement, ground) for measurement in measurements})
        on_round(number)
    faulthandler.cancel_dump_traceback_later()
    return rounds


def _play_one(measurement: Measurement, ground: Ground) -> Mapping[str, Figures]:
    samples: dict[str, list[Any]] = {contestant.name: [] for contestant in measurement.contestants}
    for _ in range(measurement.turns):
        for contestant in random.sample(measurement.contestants, len(measurement.contestants)):
            samples[contestant.name] += measurement.turn(contestant.make, ground)
    return {name: measurement.figures(of_one) for name, of_one in samples.items()}


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
