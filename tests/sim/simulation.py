"""What all simulations have in common: a seed makes a schedule, schedules are run in numbers, and what they met is
counted, since a simulation proves nothing of what it never meets.

`make test` runs some thousands of each. `make sim` runs 100,000 and more (`python -m tests.sim`).
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from tests.sim.transitions import Recorder

__all__ = ["SEED", "Simulation", "schedules"]

SEED = int(os.environ.get("PGPUBSUB_SIM_SEED", random.SystemRandom().randrange(10**9)))


def schedules(default: int) -> int:
    """How many are to be run, unless PGPUBSUB_SIM_SCHEDULES says otherwise."""
    return int(os.environ.get("PGPUBSUB_SIM_SCHEDULES", default))


@dataclass(frozen=True)
class Simulation:
    """One of them.

    Args:
        name: of `make sim SIM=...`.
        run: runs the schedule of a seed.
        seen: where it counts what it meets.
        happenings: what it is to meet,
        enough: in so many schedules.
        small: limits of the core, by their names, that are made small to be met.
        classes: of the core, whose objects are watched on the way: see `tests.sim.machines`.
    """

    name: str
    run: Callable[[int], object]
    seen: Counter[str]
    happenings: Sequence[str]
    enough: int
    small: Mapping[str, Any] = field(default_factory=dict)

    def check(self, count: int, seed: int = SEED) -> None:
        """Run `count` schedules, and more while something that they should have met is missing, up to five times."""
        with self.made_small():
            for one in range(seed, seed + 5 * count):
                if one >= seed + count and (count < self.enough or not self.never_met()):
                    break
                self.run_one(one)
        if count >= self.enough:
            assert not self.never_met(), "these are never met"

    def run_one(self, seed: int) -> None:
        """Run one schedule; the limits are small already."""
        try:
            self.run(seed)
        except Exception as error:
            raise AssertionError(f"PGPUBSUB_SIM_SEED={seed} PGPUBSUB_SIM_SCHEDULES=1 repeats this") from error

    def never_met(self) -> list[str]:
        """What is missing."""
        return [happening for happening in self.happenings if not self.seen[happening]]

    @contextmanager
    def made_small(self, recorder: Recorder | None = None) -> Iterator[None]:
        """While its limits are small; and what happens in the core is recorded, if it is to be."""
        before = {name: _named(name) for name in self.small}
        for name, value in self.small.items():
            _set(name, value)
        try:
            if recorder is None:
                yield
            else:
                with recorder.watching():
                    yield
        finally:
            for name, value in before.items():
                _set(name, value)


def _named(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def _set(name: str, value: Any) -> None:
    module, _, attribute = name.rpartition(".")
    setattr(import_module(module), attribute, value)
