"""Which lines grow: a trend over all of a run, not a sample at its end.

The samples after the warm-up become medians of intervals of equal length, which spikes do not reach. The slope between
these is Theil and Sen's, the median of the slopes of all pairs. A line grows if both are so:

- its growth over the run, by that slope, is more than its `Bound` allows;
- it is a trend and not chance: Mann and Kendall's test, with a chance of one in a thousand.

It does not find what grows by less than the bound in the time of the run: the longer that is, the less goes unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from statistics import median

__all__ = ["Bound", "Growth", "growth", "warm_up", "watched"]

INTERVALS = 24
"""At most: enough for the test, and each long enough to hide what comes and goes."""

FEWEST = 8
"""Below which nothing can be said."""

SURE = 3.09
"""Standard deviations, for a chance of one in a thousand."""


@dataclass(frozen=True)
class Bound:
    """By how much a line may grow.

    Args:
        once: whatever the time, in the line's unit: what may still be on its way to its level after the warm-up.
        share: the same as a share of its level. The larger of the two counts.
        hourly: in addition, for each hour.
    """

    once: float
    share: float = 0.0
    hourly: float = 0.0

    def allows(self, level: float, hours: float) -> float:
        """How much that is."""
        return max(self.once, self.share * level) + self.hourly * hours


@dataclass(frozen=True)
class Growth:
    """What became of a line after the warm-up."""

    begun: float
    """The median of its first quarter."""
    ended: float
    """The median of its last."""
    grown: float
    """Over the time from the first interval to the last, by the slope of all."""
    hours: float
    """That time."""
    allowed: float
    grows: bool

    @property
    def hourly(self) -> float:
        """Extrapolated."""
        return self.grown / self.hours if self.hours else 0.0


def warm_up(seconds: float) -> float:
    """How long a run of so many seconds warms up: a tenth, but a minute at least where that is not more than a third.

    >>> warm_up(1800), warm_up(600), warm_up(90)
    (180.0, 60.0, 30.0)
    """
    return max(seconds / 10, min(60.0, seconds / 3))


def watched(seconds: float) -> float:
    """Of a run of so many seconds, those over which lines may grow: from the middle of the first interval after the
    warm-up to that of the last.

    >>> watched(1800)
    1552.5
    """
    return (seconds - warm_up(seconds)) * (INTERVALS - 1) / INTERVALS


def growth(line: Sequence[tuple[float, float]], bound: Bound) -> Growth | None:
    """What became of a line of seconds and values; None where there are too few.

    >>> growth([(second, 5.0) for second in range(100)], Bound(1)).grows
    False
    >>> growth([(second, second / 10) for second in range(100)], Bound(1)).grows
    True
    """
    points = medians(line)
    if len(points) < FEWEST:
        return None
    slopes = [(later[1] - earlier[1]) / (later[0] - earlier[0]) for earlier, later in combinations(points, 2)]
    hours = (points[-1][0] - points[0][0]) / 3600
    grown = median(slopes) * hours * 3600
    quarter = len(points) // 4
    begun, ended = (median(value for _, value in part) for part in (points[:quarter], points[-quarter:]))
    allowed = bound.allows(begun, hours)
    return Growth(begun, ended, grown, hours, allowed, grown > allowed and is_trend([value for _, value in points]))


def medians(line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of intervals of equal length, each with its middle; of two samples each at least, on the average."""
    if not line:
        return []
    count = min(INTERVALS, len(line) // 2)
    first, length = line[0][0], (line[-1][0] - line[0][0]) / max(count, 1)
    parts: list[list[float]] = [[] for _ in range(count)]
    for second, value in line:
        if parts:
            parts[min(int((second - first) / (length or 1)), count - 1)].append(value)
    return [(first + (number + 0.5) * length, median(part)) for number, part in enumerate(parts) if part]


def is_trend(values: Sequence[float]) -> bool:
    """Whether they go up by more than chance: Mann and Kendall's test, with Kendall's correction for equal ones.

    >>> is_trend([1, 1, 1, 1, 1, 1, 1, 9]), is_trend([1, 2, 3, 4, 5, 6, 7, 8])
    (False, True)
    """
    score = sum((later > earlier) - (later < earlier) for earlier, later in combinations(values, 2))
    count = len(values)
    ties = [values.count(value) for value in set(values)]
    variance = (count * (count - 1) * (2 * count + 5) - sum(tie * (tie - 1) * (2 * tie + 5) for tie in ties)) / 18
    return variance > 0 and (score - 1) / sqrt(variance) > SURE
