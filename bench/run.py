"""One run: what was asked for, all rounds of it, the tables, the JSON and the pictures."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, replace
from time import monotonic
from typing import Any

from bench.comparison import ENOUGH, Comparison, Metric, compare
from bench.contestants import Contestant
from bench.ground import Effort, Ground
from bench.parts import FULL, PARTS, QUICK
from bench.plot import plot
from bench.report import await_quiet, environment, save
from bench.rounds import Measurement, Played, Round, play
from bench.sender import Sender
from bench.table import summary, table
from pgpubsub.testing import TemporaryServer

__all__ = ["main"]

LONGEST_STREAM = 20_000_000
MOST_CLIENTS = 10_000
CONNECTIONS = "400"
"""That there can be: some of the contestants stay through all rounds, with pools."""


def main() -> None:
    options = _options()
    effort = QUICK if options.quick else FULL
    effort = replace(effort, rounds=options.rounds or effort.rounds)
    if options.full:
        served = (*effort.served_steadily, MOST_CLIENTS)
        effort = replace(effort, stored_too=(LONGEST_STREAM,), served_steadily=served)
    measurements = [one for one in _measurements(effort) if _chosen(one.name, options.only)]
    if not options.quick:
        await_quiet()
    started = monotonic()
    with (
        TemporaryServer(tcp=True, settings={"max_connections": CONNECTIONS}) as server,
        Sender(server.dsn()) as sender,
        ExitStack() as to_the_end,
    ):
        surroundings = environment(server.dsn())
        for warning in surroundings["warnings"]:
            print(f"warning: {warning}")
        ground = Ground(server.dsn(), sender, effort, to_the_end)
        played = play(measurements, ground, lambda number: _show(number, effort.rounds))
    comparisons = _compare(
        measurements, played.rounds, [metric for part in PARTS.values() for metric in part.metrics(effort)]
    )
    print("\n".join([*map(table, comparisons), summary(comparisons)]))
    result = {
        "kind": "quick" if options.quick else "full",
        "environment": surroundings,
        "effort": asdict(effort),
        "seconds": played.seconds,
        "failures": played.failures,
        "comparisons": [comparison.as_json() for comparison in comparisons],
        "rounds": played.rounds,
    }
    path = save(result, "-".join(["quick" if options.quick else "latest", *options.only]), keep=not options.quick)
    _conclude(played, effort.rounds, monotonic() - started)
    if options.quick:
        print("A quick run shows that it works. Its figures mean nothing.")
    print(f"every figure: {path}; python -m bench.performance {path} makes docs/performance.md of it")
    for picture in plot(comparisons, path, only_ratios=options.quick):
        print(f"a picture: {picture}")
    if played.failures:
        sys.exit(1)


def _conclude(played: Played, rounds: int, seconds: float) -> None:
    print(f"{rounds} rounds in {seconds:.0f} s; ratios are medians (quartiles; of fewer than {ENOUGH} rounds, all)")
    for part in PARTS:
        took = {name: its for name, its in played.seconds.items() if name.startswith(f"{part}-")}
        if took:
            print(
                f"{part}: {sum(took.values()):.0f} s ({', '.join(f'{name} {its:.0f}' for name, its in took.items())})"
            )
    for name, error in played.failures.items():
        print(f"FAILED: {name}: {error}")


def _options() -> Namespace:
    known = [measurement.name for measurement in _all(FULL)]
    parts = dict.fromkeys(name.partition("-")[0] for name in known)
    parser = ArgumentParser(prog="python -m bench", description="Measure pgpubsub beside other clients.")
    parser.add_argument("--rounds", type=int, help=f"number of rounds (default: {FULL.rounds})")
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it works; no result")
    parser.add_argument(
        "--full",
        action="store_true",
        help=f"also streams of {LONGEST_STREAM:,} entries, which take some minutes to make and 15 GB of disk, and"
        f" {MOST_CLIENTS:,} clients of the gateway at a steady rate",
    )
    parser.add_argument(
        "--only", nargs="+", default=[], choices=[*parts, *known], metavar="NAME", help=", ".join([*parts, *known])
    )
    return parser.parse_args()


def _all(effort: Effort) -> list[Measurement]:
    return [measurement for part in PARTS.values() for measurement in part.measurements(effort)]


def _measurements(effort: Effort) -> list[Measurement]:
    """All, with the contestants that can take part."""
    absent: dict[str, str] = {}
    present = []
    for measurement in _all(effort):
        contestants: list[Contestant[Any]] = []
        for contestant in measurement.contestants:
            if (missing := contestant.missing) is None:
                contestants.append(contestant)
            else:
                absent[contestant.name] = missing
        present.append(measurement.among(contestants))
    for name, missing in absent.items():
        print(f"skipped: {name} ({missing})")
    return present


def _chosen(name: str, only: Iterable[str]) -> bool:
    return not only or any(name == one or name.startswith(f"{one}-") for one in only)


def _compare(measurements: Iterable[Measurement], rounds: list[Round], metrics: list[Metric]) -> list[Comparison]:
    contestants = {measurement.name: measurement.contestants for measurement in measurements}
    played = {name for one in rounds for name in one}
    return [compare(one, contestants[one.measurement], rounds) for one in metrics if one.measurement in played]


def _show(number: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"\rround {number} of {of}", end="" if number < of else "\n\n", file=sys.stderr, flush=True)
