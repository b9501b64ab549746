"""From the rounds' raw figures to medians, ratios and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

from bench.contestants import Contestant, Role
from bench.rounds import Round

__all__ = ["Aim", "Comparison", "Metric", "Ratio", "Row", "compare"]


@dataclass(frozen=True)
class Aim:
    """What pgpubsub's ratio should be."""

    limit: float
    beside_fastest: bool
    """Beside the fastest raw loop, and not the one on psycopg 3."""


@dataclass(frozen=True)
class Metric:
    """One figure of one measurement."""

    measurement: str
    figure: str
    title: str
    unit: str
    same_driver: str
    """Name of the raw loop on psycopg 3."""
    more_is_better: bool = False
    aim: Aim | None = None

    def meets(self, ratio: float) -> bool:
        """Whether a ratio meets the aim."""
        assert self.aim is not None
        return ratio >= self.aim.limit if self.more_is_better else ratio <= self.aim.limit


@dataclass(frozen=True)
class Ratio:
    """Of two contestants' figures of the same round: the median over all rounds, and the quartiles."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        lower, middle, upper = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        return cls(middle, lower, upper)


@dataclass(frozen=True)
class Row:
    """What became of one contestant."""

    contestant: str
    role: Role
    median: float
    beside_fastest: Ratio
    beside_same_driver: Ratio
    met: bool | None
    """Whether its aim is met, if it has one."""


@dataclass(frozen=True)
class Comparison:
    """What became of all contestants, in one metric."""

    metric: Metric
    fastest: str
    """The raw loop with the best ratio to the one on psycopg 3."""
    rows: Sequence[Row]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(metric: Metric, contestants: Sequence[Contestant[Any]], rounds: Sequence[Round]) -> Comparison:
    """Compare `contestants` in one metric."""
    figures = {
        contestant.name: [one[metric.measurement][contestant.name][metric.figure] for one in rounds]
        for contestant in contestants
    }
    peers = [contestant.name for contestant in contestants if contestant.role is Role.PEER]
    best = max if metric.more_is_better else min
    fastest = best(peers, key=lambda name: Ratio.of(figures[name], figures[metric.same_driver]).median)
    rows = [_row(metric, contestant, figures, fastest) for contestant in contestants]
    return Comparison(metric, fastest, rows)


def _row(metric: Metric, contestant: Contestant[Any], figures: dict[str, list[float]], fastest: str) -> Row:
    own = figures[contestant.name]
    beside_fastest = Ratio.of(own, figures[fastest])
    beside_same_driver = Ratio.of(own, figures[metric.same_driver])
    met = None
    if metric.aim is not None and contestant.role is Role.SUBJECT:
        met = metric.meets((beside_fastest if metric.aim.beside_fastest else beside_same_driver).median)
    return Row(contestant.name, contestant.role, median(own), beside_fastest, beside_same_driver, met)
