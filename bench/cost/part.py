"""The part about what it costs to be there, when nothing happens.

Memory is by how much a fresh process grows (RSS) when it holds so many more: hubs, each with its connections;
subscriptions in one hub, or listeners on one connection; readers of a stream. Connections are those that the server
counts meanwhile. Idle processes wait for something that does not come, all at the same time, each in a database of its
own, for long enough that heartbeats and polls take part: CPU time of all their threads, and how often one went on after
it had waited. Web servers do the same with a hundred clients that wait; what 10,000 of them take is in the part
`gateway`.

Nobody else has readers that share connections. sqlspec's listeners look twice a second each, so ten thousand would not
be idle: it has one. What a connection takes in the server is in the part `gateway`, too.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from bench.comparison import ITSELF, Aim, Metric
from bench.contestants import Contestant, Role
from bench.cost import held, idle
from bench.gateway.part import BROADCASTER as BROADCASTER_APP
from bench.gateway.part import EACH, MEMORY, OURS, PG_SSE, STREAM
from bench.ground import Effort
from bench.hub import receivers
from bench.hub.part import ASYNCPG, BROADCASTER, LISTEN, SQLSPEC
from bench.peers import asyncpg, asyncpg_listen, broadcaster, pgqueuer, procrastinate, sqlspec
from bench.rounds import Measurement, Together

__all__ = ["measurements", "metrics"]

READERS = 100
SHORTLY = 10.0
"""Seconds of idleness, but for hubs, which beat every ten to twelve."""


def _holder(name: str, role: Role, holder: held.Holder, driver: str = "psycopg") -> Contestant[held.Holder]:
    return Contestant(name, role, partial(_same, holder), driver)


def _same(one: Any) -> Any:
    return one


def _waiting(name: str, role: Role, make: Any, driver: str = "psycopg") -> Contestant[idle.Idler]:
    return Contestant(name, role, partial(idle.Idler, partial(idle.receive, make=make)), driver)


def _worker(name: str, module: Any, driver: str) -> Contestant[idle.Idler]:
    return Contestant(name, Role.PEER, partial(idle.Idler, partial(idle.take, by=module.take), module.install), driver)


HUBS = (
    _holder("AsyncHub", Role.SUBJECT, held.HUBS),
    _holder("Hub", Role.SUBJECT, held.Blocking()),
    _holder(ASYNCPG, Role.PEER, held.CONNECTIONS, "asyncpg"),
    _holder(LISTEN, Role.PEER, held.LISTENERS, "asyncpg_listen"),
    _holder(BROADCASTER, Role.PEER, held.BROADCASTS, "broadcaster"),
    _holder(SQLSPEC, Role.PEER, held.EVENT_CHANNELS, "sqlspec"),
)
SUBSCRIPTIONS = (
    _holder("AsyncHub, a channel for each", Role.SUBJECT, held.subscriptions(one_channel=False)),
    _holder("AsyncHub, all on one channel", Role.SUBJECT, held.subscriptions(one_channel=True)),
    _holder("AsyncHub, likewise, waiting tasks", Role.EXTRA, held.subscriptions(one_channel=True, waiting=True)),
    _holder("Hub, a channel for each", Role.SUBJECT, held.Blocking(held.subscribe)),
    _holder("Hub, all on one channel", Role.SUBJECT, held.Blocking(held.subscribe_to_one)),
    _holder("asyncpg, a function for each channel", Role.PEER, held.SUBSCRIPTIONS, "asyncpg"),
    _holder("asyncpg-listen, a channel for each", Role.PEER, held.ListenedTo(), "asyncpg_listen"),
    _holder("broadcaster, a channel for each", Role.PEER, held.BROADCASTS_SUBSCRIBED, "broadcaster"),
)
STREAM_READERS = (
    _holder("AsyncHub, read()", Role.SUBJECT, held.READERS),
    _holder("Hub, read()", Role.SUBJECT, held.Blocking(held.read)),
)
IDLE = (
    _waiting("AsyncHub", Role.SUBJECT, receivers.AsyncHub),
    _waiting("Hub", Role.SUBJECT, receivers.Hub),
    _waiting(ASYNCPG, Role.PEER, asyncpg.Receiver, "asyncpg"),
    _waiting(LISTEN, Role.PEER, asyncpg_listen.Receiver, "asyncpg_listen"),
    _waiting(BROADCASTER, Role.PEER, broadcaster.Receiver, "broadcaster"),
    _waiting(SQLSPEC, Role.PEER, sqlspec.Receiver, "sqlspec"),
)
QUEUES = (
    Contestant(f"AsyncHub, {READERS} readers", Role.SUBJECT, partial(idle.Idler, partial(idle.read, readers=READERS))),
    Contestant("AsyncHub, a group's consumer", Role.SUBJECT, partial(idle.Idler, idle.consume)),
    _worker("procrastinate, a worker", procrastinate, "procrastinate"),
    _worker("PGQueuer, a worker", pgqueuer, "pgqueuer"),
)
SERVERS = (OURS, STREAM, BROADCASTER_APP, PG_SSE, EACH)


def measurements(effort: Effort) -> list[Measurement]:
    """What is measured."""
    rounds, shortly = effort.long_rounds, min(SHORTLY, effort.idle_seconds)
    return [
        Together("cost-hubs", partial(held.hold, count=effort.hubs), HUBS, rounds),
        Together("cost-subscriptions", partial(held.hold, count=effort.held), SUBSCRIPTIONS, rounds),
        Together("cost-readers", partial(held.hold, count=effort.held // 10), STREAM_READERS, rounds),
        Together("cost-idle", partial(idle.rest, seconds=effort.idle_seconds), IDLE, rounds),
        Together("cost-queues", partial(idle.rest, seconds=shortly), QUEUES, rounds),
        Together("cost-servers", partial(idle.serve, seconds=shortly), SERVERS, rounds),
    ]


def metrics(effort: Effort) -> list[Metric]:
    """What is shown."""
    listened = (ASYNCPG, LISTEN, BROADCASTER, SQLSPEC)
    in_all = f"Memory of 10,000 subscriptions{'' if effort.held == 10_000 else f', from {effort.held:,}'}"
    fifty = Aim(50, ITSELF)
    processes, queues, servers = (
        "an idle process",
        "an idle reader or worker",
        f"an idle web server with {idle.CLIENTS} clients",
    )
    of_servers = (BROADCASTER_APP.name, PG_SSE.name, EACH.name)
    workers = tuple(one.name for one in QUEUES if one.role is Role.PEER)
    many = tuple(one.name for one in SUBSCRIPTIONS if one.role is Role.PEER)
    return [
        Metric("cost-hubs", "kib", f"Memory of a hub, of {effort.hubs} in a process", "KiB each", listened),
        Metric("cost-hubs", "connections", f"Connections of {effort.hubs} hubs", "connections", listened),
        Metric("cost-subscriptions", "mib", in_all, "MiB", many, aims=(fifty,)),
        Metric(
            "cost-subscriptions", "connections", f"Connections of {effort.held:,} subscriptions", "connections", many
        ),
        Metric("cost-readers", "kib", f"Memory of a reader of a stream, of {effort.held // 10:,}", "KiB each"),
        Metric("cost-readers", "connections", f"Connections of {effort.held // 10:,} readers", "connections"),
        Metric(
            "cost-idle",
            "cpu_ms_per_s",
            f"CPU time of {processes}",
            "ms/s",
            listened,
            aims=(Aim(1, ITSELF),),
            least=idle.LEAST,
        ),
        Metric("cost-idle", "wakings_per_s", f"Wakings of {processes}", "per second", listened, least=idle.LEAST),
        Metric("cost-idle", "connections", f"Connections of {processes}", "connections", listened),
        Metric("cost-queues", "cpu_ms_per_s", f"CPU time of {queues}", "ms/s", workers, least=idle.LEAST),
        Metric("cost-queues", "wakings_per_s", f"Wakings of {queues}", "per second", workers, least=idle.LEAST),
        Metric("cost-queues", "connections", f"Connections of {queues}", "connections", workers),
        Metric("cost-servers", "cpu_ms_per_s", f"CPU time of {servers}", "ms/s", of_servers, least=idle.LEAST),
        Metric("cost-servers", "wakings_per_s", f"Wakings of {servers}", "per second", of_servers, least=idle.LEAST),
        Metric("cost-servers", "connections", f"Connections of {servers}", "connections", of_servers),
        Metric("cost-servers", "kib", f"Memory of each client of {servers}", "KiB each", of_servers, least=MEMORY),
    ]
