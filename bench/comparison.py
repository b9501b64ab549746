"""From the rounds' raw figures to medians, ratios and whether the aims are met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from statistics import median, mode, quantiles
from typing import Any, NamedTuple, Self, TypeVar

from bench.contestants import Contestant, Role
from bench.rounds import Figures, Round

__all__ = ["ENOUGH", "FASTEST", "ITSELF", "Aim", "Comparison", "Metric", "Row", "Spread", "compare"]

C = TypeVar("C", bound="Comparison")

FASTEST = "the fastest peer"
"""Stands for the peer with the best ratio to the first one that a metric names."""

ITSELF = "itself"
"""Stands for the figure itself, where an aim is not a ratio."""

ENOUGH = 5
"""Rounds that have quartiles: of fewer, they would be points between two rounds, which nobody has measured."""


class Spread(NamedTuple):
    """The median over all rounds, and the quartiles; of fewer rounds than `ENOUGH` the lowest and the highest."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """
        >>> Spread.of([1, 9, 2])
        Spread(median=2, lower=1, upper=9)
        >>> Spread.of([1, 9, 2, 3, 4])
        Spread(median=3.0, lower=2.0, upper=4.0)
        """
        if len(values) < ENOUGH:
            return cls(median(values), min(values), max(values))
        lower, middle, upper = quantiles(values, n=4, method="inclusive")
        return cls(middle, lower, upper)

    @classmethod
    def of_ratios(cls, ours: Sequence[float], theirs: Sequence[float]) -> Spread:
        """Of two contestants' figures of the same round."""
        return cls.of([one / other for one, other in zip(ours, theirs, strict=True)])


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
    least: float = 0.0
    """Less than this cannot be told from nothing: there is no ratio to it, nor of it."""
    behind: str = ""
    """Another figure, which is 1 where a contestant could not keep up with a rate: its own figure then says how long
    that went on, and there is no ratio."""

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
    """By whom the metric has `beside`; of a subject to all peers and limits. Where there is one to be told."""
    met: Mapping[str, bool] = field(default_factory=dict)
    """Whether its aims are met, by whom they are `beside`."""
    detail: str = ""
    """Such as "8 connections", as in most of the rounds."""
    behind: bool = False
    """Whether it could not keep up in most of the rounds."""

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
        row = self.row(peer)
        return peer if row is None else row.label

    def row(self, peer: str) -> Row | None:
        """Of a peer, or of `FASTEST`; None: it took no part."""
        name = self.fastest if peer == FASTEST else peer
        return next((row for row in self.rows if row.contestant == name), None)

    def as_json(self) -> dict[str, Any]:
        """All but what follows from the rest, and causes, which may be found later."""
        rows = [
            {
                "name": row.contestant,
                "role": row.role,
                "detail": row.detail,
                "behind": row.behind,
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
        known = {one.name: given[one.name] for one in fields(Metric)}
        known |= {name: tuple(given[name]) for name in ("beside", "among")}
        known["aims"] = tuple(Aim(*aim) for aim in given["aims"])
        metric = Metric(**known)
        rows = []
        for row in given["rows"]:
            ratios = {peer: Spread(*ratio) for peer, ratio in row["ratios"].items()}
            role, figure = Role(row["role"]), Spread(*row["figure"])
            rows.append(Row(row["name"], role, figure, ratios, {}, row["detail"], row["behind"]))
        return _judged(cls(metric, given["fastest"], rows, given["rounds"]))


def compare(metric: Metric, contestants: Sequence[Contestant[Any]], rounds: Sequence[Round]) -> Comparison:
    """Compare `contestants` in one metric. A peer that did not take part is left out."""
    played = [one[metric.measurement] for one in rounds if metric.measurement in one]
    contestants = [one for one in contestants if one.name in metric.among or not metric.among]
    figures = {contestant.name: [one[contestant.name][metric.figure] for one in played] for contestant in contestants}
    behind = {name for name in figures if _is_behind(metric, [one[name] for one in played])}
    told = {name: values for name, values in figures.items() if name not in behind and _is_there(metric, values)}
    fastest = None
    if FASTEST in metric.beside:
        fastest = _fastest(metric, [one.name for one in contestants if one.role is Role.PEER], figures, told)
        if fastest in told:
            told[FASTEST] = told[fastest]
    divisors = [one.name for one in contestants if one.role in (Role.PEER, Role.LIMIT)]
    rows = []
    for one in contestants:
        beside = dict.fromkeys([*metric.beside, *(divisors if one.role is Role.SUBJECT else ())])
        own = told.get(one.name)
        ratios = {peer: Spread.of_ratios(own, told[peer]) for peer in beside if peer in told} if own else {}
        detail = _detail(metric.detail, [its[one.name] for its in played]) if metric.detail else ""
        rows.append(Row(one.name, one.role, Spread.of(figures[one.name]), ratios, {}, detail, one.name in behind))
    return _judged(Comparison(metric, fastest, rows, len(played)))


def _is_behind(metric: Metric, figures: Sequence[Figures]) -> bool:
    return bool(metric.behind) and median(one[metric.behind] for one in figures) > 0.5


def _is_there(metric: Metric, values: Sequence[float]) -> bool:
    return min(values) > 0 and median(values) >= metric.least


def _fastest(
    metric: Metric, peers: Sequence[str], figures: Mapping[str, list[float]], told: Mapping[str, list[float]]
) -> str:
    """Beside the first one that has a figure to divide by: so what made a round slow for all is left out."""
    known = next((name for name in metric.beside if name in told), None)
    candidates = [name for name in peers if name in told] or peers
    best = max if metric.more_is_better else min
    if known is None:
        return best(candidates, key=lambda name: median(figures[name]))
    return best(candidates, key=lambda name: Spread.of_ratios(figures[name], told[known]).median)


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


def _judged(comparison: C) -> C:
    """With whether the aims are met."""
    rows = [replace(row, met=_met(comparison, row)) for row in comparison.rows]
    return replace(comparison, rows=rows)


def _met(comparison: Comparison, row: Row) -> Mapping[str, bool]:
    if row.role is not Role.SUBJECT:
        return {}
    aims = [aim for aim in comparison.metric.aims if aim.beside == ITSELF or comparison.row(aim.beside)]
    return {aim.beside: _is_met(comparison, row, aim) for aim in aims}


def _is_met(comparison: Comparison, row: Row, aim: Aim) -> bool:
    """Who cannot keep up misses it, and is behind who can. Where there is no other ratio, it is met if it would be with
    the least that can be measured in place of the figure."""
    metric, peer = comparison.metric, comparison.row(aim.beside)
    if row.behind:
        return False
    if peer is None:
        return metric.meets(aim, row.figure.median)
    if aim.beside in row.ratios:
        return metric.meets(aim, row.ratios[aim.beside].median)
    if peer.behind:
        return True
    there = peer.figure.median > 0 and peer.figure.median >= metric.least
    return there and not metric.more_is_better and metric.meets(aim, metric.least / peer.figure.median)
