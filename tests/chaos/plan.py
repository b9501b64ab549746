"""What is going to happen in a round, decided before it begins, from the seed and the number of the round alone."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Kind", "Planned", "is_calm", "plan"]

CALM = 10
"""Each tenth round has to go as if nothing had ever happened."""


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Args:
        weight: how often it comes, beside the others.
        seconds: how long it lasts, at least and at most.
        exclusive: what it needs for itself: no other with the same word in one round.
        delays: whether messages arrive late because of it, rather than not at all.
    """

    weight: float
    seconds: tuple[float, float] = (0.0, 0.0)
    exclusive: str = ""
    delays: bool = False


@dataclass(frozen=True)
class Planned:
    """One fault of a round."""

    kind: str
    place: float
    """When this share of the round's messages has been sent, from 0 to 1."""
    seconds: float
    """For how long."""
    seed: int
    """Of its own choices."""

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.kind} at {self.place:.2f}{lasting}"


def is_calm(number: int) -> bool:
    """Whether nothing happens in a round, nor has happened in the one before, in which what was over had its last
    effects."""
    return number % CALM == 0


def plan(seed: int, number: int, kinds: Mapping[str, Kind]) -> Sequence[Planned]:
    """The faults of a round, in order.

    >>> kinds = {"cut": Kind(2), "restart": Kind(1, exclusive="server"), "fail_over": Kind(1, exclusive="server")}
    >>> plan(1, 7, kinds) == plan(1, 7, kinds) != plan(1, 8, kinds)
    True
    >>> [str(fault) for fault in plan(1, 8, kinds)]
    ['restart at 0.27', 'cut at 0.54']
    >>> plan(1, 9, kinds), plan(1, 10, kinds)
    ([], [])
    """
    if is_calm(number) or is_calm(number + 1):
        return []
    chance = random.Random(f"{seed} {number}")
    left = dict(kinds)
    faults = []
    for _ in range(chance.choice((1, 2, 2, 3))):
        if not left:
            break
        name = chance.choices(list(left), [kind.weight for kind in left.values()])[0]
        chosen = left[name]
        if chosen.exclusive:
            left = {other: kind for other, kind in left.items() if kind.exclusive != chosen.exclusive}
        faults.append(
            Planned(
                name,
                round(chance.uniform(0, 0.9), 3),
                round(chance.uniform(*chosen.seconds), 2),
                chance.randrange(10**9),
            )
        )
    return sorted(faults, key=lambda fault: fault.place)
