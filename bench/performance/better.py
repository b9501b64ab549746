"""What is to be said against pgpubsub: where a peer is better, and which aims are missed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from bench.comparison import Aim, Comparison, Metric, Row, Spread
from bench.contestants import Role
from bench.parts import FULL, PARTS

__all__ = ["Aimed", "Better", "aimed", "better", "better_without_ratio", "cause"]


class Better(NamedTuple):
    """Peers that are better than one of ours in one metric, by more than the spread."""

    comparison: Comparison
    ours: Row
    peers: Sequence[tuple[Row, Spread | None]]
    """Each with how many times as good it is, the best at first. None: there is no ratio, since there is nothing to be
    measured of it, or since ours cannot keep up."""


class Aimed(NamedTuple):
    """One aim of one of ours."""

    comparison: Comparison
    row: Row
    aim: Aim

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.row.met[self.aim.beside]

    @property
    def peer(self) -> str:
        """Beside whom, by name."""
        return self.comparison.label(self.aim.beside)


def better(comparisons: Sequence[Comparison]) -> Iterator[Better]:
    """A peer is better if the spread of its ratio in the same rounds is on its side, too. One round has none."""
    for comparison in comparisons:
        if comparison.rounds == 1:
            continue
        peers = {row.contestant: row for row in comparison.rows if row.role is Role.PEER}
        for row in comparison.rows:
            if row.role is Role.SUBJECT:
                without: list[tuple[Row, Spread | None]] = [
                    (peer, None) for peer in peers.values() if better_without_ratio(comparison.metric, peer, row)
                ]
                ratios = {name: comparison.metric.good(row.ratios[name]) for name in peers if name in row.ratios}
                found = [(peers[name], _inverse(good)) for name, good in ratios.items() if good.upper < 1]
                if without or found:
                    yield Better(comparison, row, [*without, *sorted(found, key=lambda one: -one[1].median)])


def better_without_ratio(metric: Metric, peer: Row, ours: Row) -> bool:
    """Whether there is nothing to be measured of a peer where there is of ours, or it keeps up where ours does not."""
    if peer.contestant in ours.ratios or peer.behind:
        return False
    return ours.behind or (not metric.more_is_better and peer.figure.upper < metric.least <= ours.figure.lower)


def _inverse(spread: Spread) -> Spread:
    return Spread(1 / spread.median, 1 / spread.upper, 1 / spread.lower)


def aimed(comparisons: Sequence[Comparison]) -> Iterator[Aimed]:
    """All aims."""
    for comparison in comparisons:
        for row in comparison.rows:
            for aim in comparison.metric.aims:
                if aim.beside in row.met:
                    yield Aimed(comparison, row, aim)


def cause(missed: Aimed) -> str:
    """Why it is, as the code says now."""
    metric = missed.comparison.metric
    return _causes().get((metric.measurement, metric.figure, missed.aim.beside), "")


@cache
def _causes() -> Mapping[tuple[str, str, str], str]:
    return {
        (metric.measurement, metric.figure, aim.beside): aim.cause
        for part in PARTS.values()
        for metric in part.metrics(FULL)
        for aim in metric.aims
    }
