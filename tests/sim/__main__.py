"""Runs simulations for a long time, on all processors: `make sim`, or `python -m tests.sim --help`.

It prints the rate and the seeds, what was never met, and which transitions docs/states.md has that were not seen, and
which were seen that it does not have, with a seed that shows each.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from multiprocessing import get_context
from time import perf_counter
from typing import NamedTuple

from tests.sim import simulations
from tests.sim.machines import MACHINES
from tests.sim.states import fixed
from tests.sim.transitions import Recorder, Seen

CHUNK = 500
"""Schedules that a process runs before it reports."""

SHARES: Mapping[str, float] = {
    "groups": 0.25,
    "groups crashes": 0.25,
    "groups pooled": 0.25,
    "groups pooled crashes": 0.25,
}
"""The four kinds of groups are one simulation, by number."""


class Task(NamedTuple):
    """Seeds of one simulation."""

    name: str
    start: int
    number: int


class Outcome(NamedTuple):
    """What became of them."""

    task: Task
    met: Counter[str]
    seen: Mapping[Seen, int]
    """By transition, a seed that shows it."""
    failure: str | None


def run(task: Task) -> Outcome:
    """Run them, and record what the core does."""
    simulation = simulations()[task.name]
    simulation.seen.clear()
    seen: dict[Seen, int] = {}
    recorder = Recorder(list(MACHINES.values()))
    failure = None
    with simulation.made_small(recorder):
        for seed in range(task.start, task.start + task.number):
            recorder.clear()
            try:
                simulation.run_one(seed)
            except AssertionError as error:
                failure = f"{task.name}: {error}: {error.__cause__!r}"
                break
            for one in recorder.seen:
                seen.setdefault(one, seed)
    return Outcome(task, Counter(simulation.seen), seen, failure)


def tasks(names: Iterable[str], count: int, seed: int) -> Sequence[Task]:
    """All that is to be run, mixed, so that all simulations get on at the same pace."""
    found = [
        (place / total, Task(name, seed + place, min(CHUNK, total - place)))
        for name in names
        for total in [max(1, round(count * SHARES.get(name, 1)))]
        for place in range(0, total, CHUNK)
    ]
    return [task for _, task in sorted(found)]


class Tally:
    """What became of all of them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.known = Recorder(list(MACHINES.values()))
        self.failures: list[str] = []
        self._done: Counter[str] = Counter()
        self._met: dict[str, Counter[str]] = defaultdict(Counter)
        self._seen: set[Seen] = set()
        self._begun = perf_counter()
        self._told_at = self._begun

    def add(self, outcome: Outcome) -> None:
        """One task is done."""
        name = outcome.task.name
        self._done[name] += outcome.task.number
        self._met[_first_word(name)] += outcome.met
        for transition, seed in outcome.seen.items():
            if transition not in self._seen and transition not in self.known.seen:
                said = " ".join(filter(None, transition))
                self._fail(f"not in docs/states.md: {said!r}: seed {seed} of {name} shows it")
            self._seen.add(transition)
        if outcome.failure is not None:
            self._fail(outcome.failure)
        if perf_counter() > self._told_at + 30:
            self._told_at = perf_counter()
            print(f"{self._told_at - self._begun:6.0f} s: {sum(self._done.values()):,} schedules", flush=True)

    def report(self, seed: int) -> None:
        """Print the figures, and what is wrong."""
        seconds, schedules = perf_counter() - self._begun, sum(self._done.values())
        for name, count in sorted(self._done.items()):
            print(f"{name:24}{count:10,} schedules, seeds {seed} to {seed + count - 1}")
        print(f"{schedules:,} schedules in {seconds:.0f} s: {schedules / seconds:,.0f} a second")
        met = len(self._seen & self.known.seen.keys())
        print(f"{met} of {len(self.known.seen)} transitions of docs/states.md were seen")
        for failure in list(self._unmet()):
            self._fail(failure)
        print("failed" if self.failures else "every promise held, and everything was met")

    def _fail(self, failure: str) -> None:
        self.failures.append(failure)
        print(failure, flush=True)

    def _unmet(self) -> Iterator[str]:
        for first, its in groupby(simulations(), key=_first_word):
            if set(its) <= set(self.names):  # what one kind of groups never meets another does
                for one in simulations()[first].happenings:
                    if not self._met[first][one]:
                        yield f"{first}: never met: {one}"
        if len(self.names) == len(simulations()):
            for transition in self.known.seen.keys() - self._seen:
                yield f"in docs/states.md, and not seen: {' '.join(filter(None, transition))!r}"


def _first_word(name: str) -> str:
    return name.partition(" ")[0]


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of: {', '.join(simulations())}")
    parser.add_argument("--schedules", type=int, default=100_000, help="of each simulation")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    given = parser.parse_args()
    tally = Tally(given.names or list(simulations()))
    fixed(tally.known)
    print(f"{given.schedules:,} schedules each from seed {given.seed}, in {given.workers} processes", flush=True)
    with get_context("fork").Pool(given.workers, maxtasksperchild=20) as pool:
        for outcome in pool.imap_unordered(run, tasks(tally.names, given.schedules, given.seed)):
            tally.add(outcome)
    tally.report(given.seed)
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
