"""What is measured of channel layers, beside what, and with which aims."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bench.comparison import Aim, Metric
from bench.contestants import Contestant, Role
from bench.ground import Effort
from bench.layers import server
from bench.layers.turns import LOST, RATE, latencies, per_second, steady, to_group, to_one
from bench.layers.ways import Way, channels_postgres, channels_redis, ours
from bench.layers.yard import CHANNELS, RECEIVERS
from bench.rounds import InTurns, Measurement

__all__ = ["measurements", "metrics"]

TASKS = (1, 50)
"""That send at once."""


class _InRedis(Contestant[Way]):
    @property
    def missing(self) -> str | None:
        return super().missing or server.missing()


def _made(way: Way) -> Callable[[], Way]:
    return lambda: way


OURS = Contestant("PostgresChannelLayer", Role.SUBJECT, _made(ours), "pgpubsub.contrib.channels")
POSTGRES = Contestant("channels_postgres", Role.PEER, _made(channels_postgres), "channels_postgres")
REDIS = _InRedis(
    "channels_redis.core",
    Role.PEER,
    _made(partial(channels_redis, backend="channels_redis.core.RedisChannelLayer")),
    "channels_redis",
)
PUBSUB = _InRedis(
    "channels_redis.pubsub",
    Role.PEER,
    _made(partial(channels_redis, backend="channels_redis.pubsub.RedisPubSubChannelLayer")),
    "channels_redis",
)
EVERYBODY = (OURS, POSTGRES, REDIS, PUBSUB)
BESIDE = (POSTGRES.name, REDIS.name, PUBSUB.name)
AIMS = (Aim(1.0, POSTGRES.name),)


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
