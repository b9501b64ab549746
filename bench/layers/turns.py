"""One turn of one channel layer, and the figures that it gives.

What has not come when nothing came for some seconds is lost. It is told beside the name; where it is about latency, it
counts with those seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.ground import Ground
from bench.layers.post import PATIENCE
from bench.layers.ways import Way
from bench.layers.yard import Turn, yard
from bench.rounds import Figures, latency

__all__ = ["LOST", "RATE", "latencies", "per_second", "steady", "to_group", "to_one"]

RATE = 200
"""Messages per second, where it is about latency."""

WARM_UP = 20
"""Messages that do not count, there."""

LOST = "lost"

Make = Callable[[], Way]


def steady(make: Make, ground: Ground) -> Sequence[Turn]:
    """One message after the other, at a rate."""
    seconds = 2 * max(ground.effort.arriving.values())
    return [yard(ground).stage(make()).to_one(seconds=seconds, rate=RATE)]


def to_one(make: Make, ground: Ground, *, tasks: int) -> Sequence[Turn]:
    """So many tasks send as fast as they can."""
    return [yard(ground).stage(make()).to_one(seconds=_seconds(ground), tasks=tasks)]


def to_group(make: Make, ground: Ground, *, tasks: int) -> Sequence[Turn]:
    """The same, to the group."""
    return [yard(ground).stage(make()).to_group(seconds=_seconds(ground), tasks=tasks)]


def _seconds(ground: Ground) -> float:
    return 5 * ground.effort.calling_seconds


def latencies(turns: Sequence[Turn]) -> Figures:
    """From just before the call that sends until a consumer has the message."""
    samples = [arrival.at - arrival.sent for turn in turns for arrival in turn.arrivals[WARM_UP:]]
    return {**latency([*samples, *[round(PATIENCE * 1e9)] * _lost(turns)]), **_tell_lost(turns)}


def per_second(turns: Sequence[Turn]) -> Figures:
    """Messages that consumers received, from the first call until the last of them."""
    number = sum(len(turn.arrivals) for turn in turns)
    took = sum(_last(turn) - turn.sent.began for turn in turns)
    return {"per_second": 1e9 * max(1, number) / took, **_tell_lost(turns)}


def _last(turn: Turn) -> int:
    return max((arrival.at for arrival in turn.arrivals), default=turn.sent.began + round(PATIENCE * 1e9))


def _lost(turns: Sequence[Turn]) -> int:
    return sum(turn.expected - len(turn.arrivals) for turn in turns)


def _tell_lost(turns: Sequence[Turn]) -> Figures:
    lost = _lost(turns)
    return {LOST: lost} if lost else {}
