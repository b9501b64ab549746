"""`python -m bench`: see the package."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import asdict, replace
from time import monotonic
from typing import Any

from bench import echoes, raw_loops
from bench.comparison import Aim, Comparison, Metric, compare
from bench.contestants import Contestant
from bench.echoes import ECHOES
from bench.raw_loops import RAW_LOOPS
from bench.report import environment, save, table
from bench.rounds import Measurement, Round, latency, play, throughput
from bench.sender import Sender
from bench.subscribers import SUBSCRIBERS
from bench.turns import Effort, Ground, drain, echo, flow, wake
from pgpubsub.testing import TemporaryServer

FULL = Effort()
QUICK = Effort(rounds=2, throughput_turns=1, drained_bursts=1, flowing_bursts=2, latency_turns=1, samples=20)

THROUGHPUT = Aim(0.9, beside_fastest=True)
LATENCY = Aim(1.15, beside_fastest=False)

DRAIN = "Throughput, the burst waits at the receiver"
FLOW = "Throughput, several bursts on their way, the server's work included"
ECHO = "Latency on one connection"
WAKE = "Latency from another process's NOTIFY to a blocked receiver"

METRICS = (
    Metric("drain", "per_second", DRAIN, "notifications/s", raw_loops.PSYCOPG3, True, THROUGHPUT),
    Metric("drain", "cpu_us", f"{DRAIN}: CPU time", "µs/notification", raw_loops.PSYCOPG3),
    Metric("flow", "per_second", FLOW, "notifications/s", raw_loops.PSYCOPG3, True, THROUGHPUT),
    Metric("flow", "cpu_us", f"{FLOW}: receiver's CPU time", "µs/notification", raw_loops.PSYCOPG3),
    Metric("echo", "p50_us", f"{ECHO}, p50", "µs", echoes.PSYCOPG3, aim=LATENCY),
    Metric("echo", "p99_us", f"{ECHO}, p99", "µs", echoes.PSYCOPG3, aim=LATENCY),
    Metric("wake", "p50_us", f"{WAKE}, p50", "µs", raw_loops.PSYCOPG3, aim=LATENCY),
    Metric("wake", "p99_us", f"{WAKE}, p99", "µs", raw_loops.PSYCOPG3, aim=LATENCY),
)


def main() -> None:
    options = _options()
    effort = QUICK if options.quick else FULL
    effort = replace(effort, rounds=options.rounds or effort.rounds)
    receivers = _present([*SUBSCRIBERS, *RAW_LOOPS])
    measurements = [
        Measurement("drain", drain, effort.throughput_turns, throughput, receivers),
        Measurement("flow", flow, effort.throughput_turns, throughput, receivers),
        Measurement("echo", echo, effort.latency_turns, latency, _present(ECHOES)),
        Measurement("wake", wake, effort.latency_turns, latency, receivers),
    ]
    started = monotonic()
    with TemporaryServer(tcp=True) as server, Sender(server.dsn()) as sender:
        surroundings = environment(server.dsn())
        rounds = play(measurements, Ground(server.dsn(), sender, effort), lambda number: _show(number, effort.rounds))
    comparisons = _compare(measurements, rounds)
    print("\n".join(map(table, comparisons)))
    path = save(
        {
            "environment": surroundings,
            "effort": asdict(effort),
            "seconds": monotonic() - started,
            "load average at the end": os.getloadavg(),
            "comparisons": [comparison.as_json() for comparison in comparisons],
            "rounds": rounds,
        },
        quick=options.quick,
    )
    print(f"{effort.rounds} rounds in {monotonic() - started:.0f} s; ratios are medians over the rounds (quartiles)")
    if options.quick:
        print("A quick run shows that it works. Its figures mean nothing.")
    print(f"every figure: {path}")


def _options() -> Namespace:
    parser = ArgumentParser(prog="python -m bench", description="Measure pgpubsub beside other clients.")
    parser.add_argument("--rounds", type=int, help=f"number of rounds (default: {FULL.rounds})")
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it works; no result")
    return parser.parse_args()


def _present(contestants: Iterable[Contestant[Any]]) -> list[Contestant[Any]]:
    present = []
    for contestant in contestants:
        if (missing := contestant.missing) is None:
            present.append(contestant)
        else:
            print(f"skipped: {contestant.name} ({missing})")
    return present


def _compare(measurements: Iterable[Measurement], rounds: list[Round]) -> list[Comparison]:
    contestants = {measurement.name: measurement.contestants for measurement in measurements}
    return [compare(metric, contestants[metric.measurement], rounds) for metric in METRICS]


def _show(number: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"\rround {number} of {of}", end="" if number < of else "\n\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
