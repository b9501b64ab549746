"""The parts of the benchmark, and how much of each is measured.

A part is a module that says what it measures (its docstring, which is also what docs/performance.md says of it), and
has `measurements(effort)` and `metrics(effort)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from bench import pubsub
from bench.cost import part as cost
from bench.gateway import part as gateway
from bench.ground import SLOW, Effort
from bench.groups import part as groups
from bench.hub import part as hub
from bench.layers import part as layers
from bench.sending import part as sending
from bench.streams import part as streams
from bench.triggers import part as triggers

__all__ = ["FULL", "PARTS", "QUICK"]

PARTS: Mapping[str, ModuleType] = {
    "pubsub": pubsub,
    "hub": hub,
    "sending": sending,
    "streams": streams,
    "groups": groups,
    "triggers": triggers,
    "layers": layers,
    "gateway": gateway,
    "cost": cost,
}
"""By name, with which the names of their measurements begin."""

FULL = Effort()
QUICK = Effort(
    rounds=2,
    throughput_turns=1,
    drained_bursts=1,
    flowing_bursts=2,
    flooding_bursts=2,
    latency_turns=1,
    samples=20,
    subscribers=100,
    messages=2,
    entered=50,
    held=500,
    hubs=5,
    idle_seconds=1.0,
    long_rounds=1,
    sending_rounds=1,
    calling_seconds=0.05,
    most_connections=4,
    many=5_000,
    streamed=20_000,
    typed=1000,
    stream_rounds=1,
    appending_tasks={1: (4,), 16: (4,), 256: (4,)},
    appending_threads={16: (4,)},
    arriving={100: 0.2, 1000: 0.2},
    stored=20_000,
    disks=(SLOW,),
    hour_seconds=3.0,
    serving_rounds=1,
    served_bursts={100: 100},
    served_steadily=(100,),
    served_seconds=0.5,
)
