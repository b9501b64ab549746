"""From the rounds' raw figures to medians, ratios and whether the aims are met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from statistics import mode, quantiles
from typing import Any, NamedTuple, Self

from bench.contestants import Contestant, Role
from bench.rounds import Figures, Round

__all__ = ["FASTEST", "ITSELF", "Aim", "Comparison", "Metric", "Row", "Spread", "compare"]

FASTEST = "the fastest peer"
"""Stands for the peer with the best ratio to the first one that a metric names."""

ITSELF = "itself"
"""Stands for the figure itself, where an aim is not a ratio."""


LEAST = 1e-9
"""Stands for nothing at all where it is to be divided by."""


class Spread(NamedTuple):
    """The median over all rounds, and the quartiles."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        lower, middle, upper = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
        return cls(middle, lower, upper)

    @classmethod
    def of_ratios(cls, ours: Sequence[float], theirs: Sequence[float]) -> Spread:
        """Of two contestants' figures of the same round."""
        return cls.of([max(one, LEAST) / max(other, LEAST) for one, other in zip(ours, theirs, strict=True)])


@dataclass(frozen=True)
class Aim:
    """What pgpubsub's ratio should be, at least or at most."""

    limit: float
    beside: str
    """A peer, `FASTEST` or `ITSELF`."""
    cause: str = ""
    """Why it is missed where it is: sentences for docs/performance.md."""


@dataclass(frozen=True)
class Metric:
    """One figure of one measurement."""

    measurement: str
    figure: str
    title: str
    unit: str
    beside: tuple[str, ...] = ()
    """Peers to divide by, or `FASTEST`."""
    more_is_better: bool = False
    aims: tuple[Aim, ...] = ()
    detail: str = ""
    """Another figure, a whole number that stands beside the name of a contestant that has it: "connections"."""
    among: tuple[str, ...] = ()
    """Whom it is about, if not everybody who takes part."""

    @property
    def part(self) -> str:
        """Of the benchmark."""
        return self.measurement.partition("-")[0]

    def meets(self, aim: Aim, value: float) -> bool:
        """Whether a ratio, or a figure, meets an aim."""
        return value >= aim.limit if self.more_is_better else value <= aim.limit

    def good(self, ratio: Spread) -> Spread:
        """How many times as good: the same as the ratio where more is better."""
        return ratio if self.more_is_better else Spread(1 / ratio.median, 1 / ratio.upper, 1 / ratio.lower)


@dataclass(frozen=True)
class Row:
    """What became of one contestant."""

    contestant: str
    role: Role
    figure: Spread
    ratios: Mapping[str, Spread]
    """By whom the metric has `beside`; of a subject to all peers and limits."""
    met: Mapping[str, bool]
    """Whether its aims are met, by whom they are `beside`."""
    detail: str = ""
    """Such as "8 connections", as in most of the rounds."""

    @property
    def label(self) -> str:
        """Its name, with the detail."""
        return f"{self.contestant}, {self.detail}" if self.detail else self.contestant


@dataclass(frozen=True)
class Comparison:
    """What became of all contestants, in one metric."""

    metric: Metric
    fastest: str | None
    """Who `FASTEST` is."""
    rows: Sequence[Row]
    rounds: int
    """That it took place in."""

    def label(self, peer: str) -> str:
        """The name of a peer, or of `FASTEST`, with the detail."""
        name = self.fastest if peer == FASTEST else peer
        return next((row.label for row in self.rows if row.contestant == name), str(name))

    def as_json(self) -> dict[str, Any]:
        """All but what follows from the rest, and causes, which may be found later."""
        rows = [
            {
                "name": row.contestant,
                "role": row.role,
                "detail": row.detail,
                "figure": list(row.figure),
                "ratios": {peer: list(ratio) for peer, ratio in row.ratios.items()},
            }
            for row in self.rows
        ]
        aims = [[aim.limit, aim.beside] for aim in self.metric.aims]
        return {
            **asdict(replace(self.metric, aims=())),
            "aims": aims,
            "fastest": self.fastest,
            "rounds": self.rounds,
            "rows": rows,
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """The same again."""
        known = {field.name: given[field.name] for field in fields(Metric)}
        known |= {name: tuple(given[name]) for name in ("beside", "among")}
        known["aims"] = tuple(Aim(*aim) for aim in given["aims"])
        metric = Metric(**known)
        rows = []
        for row in given["rows"]:
            ratios = {peer: Spread(*ratio) for peer, ratio in row["ratios"].items()}
            role, figure = Role(row["role"]), Spread(*row["figure"])
            rows.append(Row(row["name"], role, figure, ratios, _met(metric, role, figure, ratios), row["detail"]))
        return cls(metric, given["fastest"], rows, given["rounds"])


def compare(metric: Metric, contestants: Sequence[Contestant[Any]], rounds: Sequence[Round]) -> Comparison:
    """Compare `contestants` in one metric. A peer that did not take part is left out."""
    played = [one[metric.measurement] for one in rounds if metric.measurement in one]
    contestants = [one for one in contestants if one.name in metric.among or not metric.among]
    figures = {contestant.name: [one[contestant.name][metric.figure] for one in played] for contestant in contestants}
    fastest = None
    if FASTEST in metric.beside:
        peers = [contestant.name for contestant in contestants if contestant.role is Role.PEER]
        known = next(name for name in metric.beside if name in figures)
        best = max if metric.more_is_better else min
        fastest = best(peers, key=lambda name: Spread.of_ratios(figures[name], figures[known]).median)
        figures[FASTEST] = figures[fastest]
    divisors = [one.name for one in contestants if one.role in (Role.PEER, Role.LIMIT)]
    rows = [_row(metric, contestant, figures, divisors) for contestant in contestants]
    if metric.detail:
        rows = [replace(row, detail=_detail(metric.detail, [one[row.contestant] for one in played])) for row in rows]
    return Comparison(metric, fastest, rows, len(played))


def _detail(name: str, figures: Sequence[Figures]) -> str:
    """
    >>> _detail("connections", [{"connections": 4}, {"connections": 1}, {"connections": 4}])
    '4 connections'
    """
    given = [one[name] for one in figures if name in one]
    if not given:
        return ""
    number = mode(given)
    return f"{number:.0f} {name.removesuffix('s') if number == 1 else name}"


def _row(
    metric: Metric, contestant: Contestant[Any], figures: Mapping[str, list[float]], divisors: Sequence[str]
) -> Row:
    own = figures[contestant.name]
    subject = contestant.role is Role.SUBJECT
    beside = dict.fromkeys([*metric.beside, *(divisors if subject else ())])
    ratios = {peer: Spread.of_ratios(own, figures[peer]) for peer in beside if peer in figures}
    figure = Spread.of(own)
    return Row(contestant.name, contestant.role, figure, ratios, _met(metric, contestant.role, figure, ratios))


def _met(metric: Metric, role: Role, figure: Spread, ratios: Mapping[str, Spread]) -> Mapping[str, bool]:
    if role is not Role.SUBJECT:
        return {}
    values = {ITSELF: figure, **ratios}
    return {aim.beside: metric.meets(aim, values[aim.beside].median) for aim in metric.aims if aim.beside in values}
