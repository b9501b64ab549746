"""The part about `PubSub`: one connection, driven by its caller."""

from __future__ import annotations

from bench import echoes, raw_loops
from bench.comparison import FASTEST, Aim, Metric
from bench.echoes import ECHOES
from bench.ground import Effort
from bench.raw_loops import RAW_LOOPS
from bench.rounds import InTurns, Measurement, latency, throughput
from bench.subscribers import SUBSCRIBERS
from bench.turns import drain, echo, flow, wake

__all__ = ["measurements", "metrics"]

THROUGHPUT = (Aim(0.9, FASTEST),)

DRAIN = "Throughput, the burst waits at the receiver"
FLOW = "Throughput, several bursts on their way, the server's work included"
ECHO = "Latency on one connection"
WAKE = "Latency from another process's NOTIFY to a blocked receiver"

RECEIVING = (FASTEST, raw_loops.PSYCOPG3)
ECHOING = (FASTEST, echoes.PSYCOPG3)


def measurements(effort: Effort) -> list[Measurement]:
    """What is measured."""
    receivers = (*SUBSCRIBERS, *RAW_LOOPS)
    return [
        InTurns("pubsub-drain", drain, effort.throughput_turns, throughput, receivers),
        InTurns("pubsub-flow", flow, effort.throughput_turns, throughput, receivers),
        InTurns("pubsub-echo", echo, effort.latency_turns, latency, ECHOES),
        InTurns("pubsub-wake", wake, effort.latency_turns, latency, receivers),
    ]


def metrics(effort: Effort) -> list[Metric]:
    """What is shown."""
    beside_psycopg3, echo_beside_psycopg3 = (Aim(1.15, RECEIVING[1]),), (Aim(1.15, ECHOING[1]),)
    return [
        Metric("pubsub-drain", "per_second", DRAIN, "notifications/s", RECEIVING, True, THROUGHPUT),
        Metric("pubsub-drain", "cpu_us", f"{DRAIN}: CPU time", "µs/notification", RECEIVING),
        Metric("pubsub-flow", "per_second", FLOW, "notifications/s", RECEIVING, True, THROUGHPUT),
        Metric("pubsub-flow", "cpu_us", f"{FLOW}: receiver's CPU time", "µs/notification", RECEIVING),
        Metric("pubsub-echo", "p50_us", f"{ECHO}, p50", "µs", ECHOING, aims=echo_beside_psycopg3),
        Metric("pubsub-echo", "p99_us", f"{ECHO}, p99", "µs", ECHOING, aims=echo_beside_psycopg3),
        Metric("pubsub-wake", "p50_us", f"{WAKE}, p50", "µs", RECEIVING, aims=beside_psycopg3),
        Metric("pubsub-wake", "p99_us", f"{WAKE}, p99", "µs", RECEIVING, aims=beside_psycopg3),
    ]
