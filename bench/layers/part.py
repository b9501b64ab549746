"""The part about Django Channels' channel layers, beside one in PostgreSQL and two in Redis.

One process sends; consumers in four others receive, 25 channels in each. Latency is of messages at a steady rate; the
rest are messages, or deliveries to a group of all channels, of one task that awaits each send and of fifty that send
at once. What was lost is told beside the name. Redis keeps nothing on disk, and its `pubsub` layer keeps nothing at
all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bench.comparison import Aim, Metric
from bench.contestants import Contestant, Role
from bench.ground import Effort
from bench.layers import server
from bench.layers.turns import LOST, RATE, latencies, per_second, steady, to_group, to_one
from bench.layers.ways import Way, ours
from bench.layers.yard import CHANNELS, RECEIVERS
from bench.peers import channels_postgres, channels_redis
from bench.rounds import InTurns, Measurement

__all__ = ["measurements", "metrics"]

TASKS = (1, 50)
"""That send at once."""


def _made(way: Way) -> Callable[[], Way]:
    return lambda: way


OURS = Contestant("PostgresChannelLayer", Role.SUBJECT, _made(ours), "pgpubsub.contrib.channels")
POSTGRES = Contestant("channels_postgres", Role.PEER, _made(channels_postgres.prepare), "channels_postgres")
REDIS, PUBSUB = (
    Contestant(
        name, Role.PEER, _made(partial(channels_redis.prepare, backend=backend)), "channels_redis", server.missing
    )
    for name, backend in (
        ("channels_redis.core", "channels_redis.core.RedisChannelLayer"),
        ("channels_redis.pubsub", "channels_redis.pubsub.RedisPubSubChannelLayer"),
    )
)
EVERYBODY = (OURS, POSTGRES, REDIS, PUBSUB)
BESIDE = (POSTGRES.name, REDIS.name, PUBSUB.name)
STORED = (
    "A message is stored and taken, in two transactions; channels_postgres sends with the notification what it need not"
    " take, and what it sends while a receiver is cut off is not received."
)
AIMS = (Aim(1.0, POSTGRES.name, STORED),)


def measurements(effort: Effort) -> list[Measurement]:
    """What is measured."""
    rounds = effort.stream_rounds
    found: list[Measurement] = [InTurns("layers-latency", steady, 1, latencies, EVERYBODY, rounds)]
    for tasks in TASKS:
        found.append(InTurns(f"layers-send-{tasks}", partial(to_one, tasks=tasks), 1, per_second, EVERYBODY, rounds))
    for tasks in TASKS:
        found.append(InTurns(f"layers-group-{tasks}", partial(to_group, tasks=tasks), 1, per_second, EVERYBODY, rounds))
    return found


def metrics(effort: Effort) -> list[Metric]:
    """What is shown."""
    found = []
    for percent in (50, 99):
        title = f"From a send to a consumer in another process, {RATE}/s, p{percent}"
        found.append(Metric("layers-latency", f"p{percent}_us", title, "µs", BESIDE, aims=AIMS, detail=LOST))
    for tasks in TASKS:
        title = f"To one channel of another process, {_who(tasks)}"
        found.append(_rate(f"layers-send-{tasks}", title, "messages/s"))
    for tasks in TASKS:
        title = f"To a group of {CHANNELS} channels in {RECEIVERS} processes, {_who(tasks)}"
        found.append(_rate(f"layers-group-{tasks}", title, "deliveries/s"))
    return found


def _rate(measurement: str, title: str, unit: str) -> Metric:
    return Metric(measurement, "per_second", title, unit, BESIDE, True, AIMS, LOST)


def _who(tasks: int) -> str:
    return f"{tasks} tasks" if tasks > 1 else "one after the other"
