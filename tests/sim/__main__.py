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
from collections.abc import Iterable, Mapping, Sequence
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
    count: int


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
        for seed in range(task.start, task.start + task.count):
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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of: {', '.join(simulations())}")
    parser.add_argument("--schedules", type=int, default=100_000, help="of each simulation")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    given = parser.parse_args()
    names = given.names or list(simulations())
    print(f"{given.schedules:,} schedules each from seed {given.seed}, in {given.workers} processes", flush=True)

    known = Recorder(list(MACHINES.values()))
    fixed(known)
    for simulation in simulations().values():
        simulation.seen.clear()
    met: dict[str, Counter[str]] = defaultdict(Counter)
    done: Counter[str] = Counter()
    seen: dict[Seen, tuple[str, int]] = {}
    failures = []
    begun = perf_counter()
    with get_context("fork").Pool(given.workers, maxtasksperchild=20) as pool:
        for outcome in pool.imap_unordered(run, tasks(names, given.schedules, given.seed)):
            name = outcome.task.name
            met[name.partition(" ")[0]] += outcome.met
            done[name] += outcome.task.count
            for one, seed in outcome.seen.items():
                seen.setdefault(one, (name, seed))
            if outcome.failure is not None:
                failures.append(outcome.failure)
                print(outcome.failure, flush=True)
            if sum(done.values()) % (40 * CHUNK) < CHUNK:
                seconds = perf_counter() - begun
                print(f"{seconds:6.0f} s: {sum(done.values()):,} schedules", flush=True)

    seconds = perf_counter() - begun
    for name, count in done.items():
        print(f"{name:24}{count:10,} schedules, seeds {given.seed} to {given.seed + count - 1}")
    print(f"{sum(done.values()):,} schedules in {seconds:.0f} s: {sum(done.values()) / seconds:,.0f} a second")
    for name, simulation in simulations().items():
        happened = met[name.partition(" ")[0]]
        if done[name]:
            failures += [f"{name}: never met: {one}" for one in simulation.happenings if not happened[one]]
    for one, (name, seed) in seen.items():
        if one not in known.seen:
            failures.append(f"not in docs/states.md: {one}: seed {seed} of {name} shows it")
    if not given.names:
        failures += [f"in docs/states.md, and not seen: {one}" for one in known.seen if one not in seen]
        print(f"{len(set(seen) & set(known.seen))} of {len(known.seen)} transitions of docs/states.md were seen")
    print("\n".join(failures) or "every promise held, and everything was met")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
