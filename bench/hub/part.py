"""What is measured of the hub, beside what, and with which aims."""

from __future__ import annotations

from functools import partial
from typing import Any

from bench.comparison import ITSELF, Aim, Metric
from bench.contestants import Contestant, Counter, Entrant, Publisher, Receiver, Role
from bench.ground import Effort
from bench.hub import apart, entrants, fleet, floods, publishers, receivers, turns
from bench.raw_loops import ASYNCPG, PSYCOPG2, PSYCOPG3, Asyncpg, Psycopg2, Psycopg3
from bench.rounds import InTurns, Measurement, Together, latency, throughput
from bench.turns import drain, flow, wake

__all__ = ["measurements", "metrics"]

LISTEN = "asyncpg-listen, a handler"
BROADCASTER = "broadcaster, a subscriber"
ONE_EACH = "a connection for each, epoll"
SEND_3, SEND_3_ASYNC, SEND_ASYNCPG = "psycopg 3 execute()", "psycopg 3 async execute()", "asyncpg execute()"
LISTENS, ADD_LISTENERS = "psycopg 3, a LISTEN for each", "asyncpg add_listener() for each"

HUB = Contestant[Receiver]("Hub", Role.SUBJECT, receivers.Hub)
ON_LOOPS: tuple[Contestant[Receiver], ...] = (
    Contestant("AsyncHub", Role.SUBJECT, receivers.AsyncHub),
    Contestant("AsyncHub on uvloop", Role.EXTRA, receivers.AsyncHubOnUvloop, "uvloop"),
    Contestant(ASYNCPG, Role.PEER, Asyncpg, "asyncpg"),
    Contestant("asyncpg on uvloop", Role.EXTRA, receivers.AsyncpgOnUvloop, "uvloop"),
    Contestant(LISTEN, Role.PEER, receivers.AsyncpgListen, "asyncpg_listen"),
    Contestant(BROADCASTER, Role.PEER, receivers.Broadcaster, "broadcaster"),
)
BLOCKING: tuple[Contestant[Receiver], ...] = (
    Contestant(PSYCOPG3, Role.PEER, Psycopg3),
    Contestant(PSYCOPG2, Role.PEER, Psycopg2, "psycopg2"),
)
COUNTERS: tuple[Contestant[Counter], ...] = (
    Contestant("AsyncHub", Role.SUBJECT, floods.AsyncHub),
    Contestant("Hub", Role.SUBJECT, floods.Hub),
)
PUBLISHERS: tuple[Contestant[Publisher], ...] = (
    Contestant("AsyncHub, notify()", Role.SUBJECT, publishers.AsyncHub),
    Contestant("AsyncHub on uvloop", Role.EXTRA, publishers.AsyncHubOnUvloop, "uvloop"),
    Contestant("Hub, notify()", Role.SUBJECT, publishers.Hub),
    Contestant(SEND_3, Role.PEER, publishers.Psycopg3),
    Contestant(SEND_3_ASYNC, Role.PEER, publishers.Psycopg3Async),
    Contestant(SEND_ASYNCPG, Role.PEER, publishers.Asyncpg, "asyncpg"),
    Contestant("asyncpg on uvloop", Role.EXTRA, publishers.AsyncpgOnUvloop, "uvloop"),
)
ENTRANTS: tuple[Contestant[Entrant], ...] = (
    Contestant("AsyncHub, a task for each", Role.SUBJECT, entrants.AsyncHub),
    Contestant("Hub, a thread for each", Role.SUBJECT, entrants.Hub),
    Contestant(LISTENS, Role.PEER, entrants.Psycopg3),
    Contestant(ADD_LISTENERS, Role.PEER, entrants.Asyncpg, "asyncpg"),
)
FLEETS: tuple[Contestant[fleet.Crew], ...] = (
    Contestant("AsyncHub, a task for each", Role.SUBJECT, partial(fleet.Crew, fleet.tasks)),
    Contestant("Hub, a thread for each", Role.SUBJECT, partial(fleet.Crew, fleet.threads)),
    Contestant(ONE_EACH, Role.PEER, partial(fleet.Crew, fleet.connections)),
    Contestant("one subscriber, one connection", Role.EXTRA, partial(fleet.Crew, fleet.connections, 1)),
)
HOLDERS: tuple[Contestant[Any], ...] = (
    Contestant("AsyncHub, a channel for each", Role.SUBJECT, partial(apart.AsyncHolder, one_channel=False)),
    Contestant("AsyncHub, all on one channel", Role.SUBJECT, partial(apart.AsyncHolder, one_channel=True)),
    Contestant(
        "AsyncHub, likewise, waiting tasks", Role.EXTRA, partial(apart.AsyncHolder, one_channel=True, tasks=True)
    ),
    Contestant("Hub, a channel for each", Role.SUBJECT, partial(apart.Holder, one_channel=False)),
    Contestant("Hub, all on one channel", Role.SUBJECT, partial(apart.Holder, one_channel=True)),
)


def measurements(effort: Effort) -> list[Measurement]:
    """What is measured. A `Hub` reads what arrives whether or not anybody receives, so it cannot have a burst wait at
    its socket."""
    short = turns.PAYLOAD_SIZE
    everybody = (ON_LOOPS[0], HUB, *ON_LOOPS[1:], *BLOCKING)
    idle = (ON_LOOPS[0], HUB, next(one for one in ON_LOOPS if one.name == LISTEN))
    long = effort.long_rounds
    return [
        Together("hub-fanout", turns.fan_out, FLEETS),
        InTurns("hub-drain", partial(drain, length=short), effort.throughput_turns, throughput, ON_LOOPS + BLOCKING),
        InTurns("hub-flow", partial(flow, length=short), effort.throughput_turns, throughput, everybody),
        InTurns("hub-wake", wake, effort.latency_turns, latency, everybody),
        InTurns("hub-notify", turns.publish, effort.latency_turns, latency, PUBLISHERS),
        InTurns("hub-enter", turns.enter, 1, turns.entering, ENTRANTS),
        InTurns("hub-flood", floods.flood, effort.throughput_turns, floods.losing, COUNTERS),
        Together("hub-idle", apart.rest, idle, long),
        Together("hub-memory", apart.hold, HOLDERS, long),
    ]


def metrics(effort: Effort) -> list[Metric]:
    """What is shown."""
    message = f"One message to {effort.subscribers:,} subscribers in one process"
    drained = "One subscription, a burst that waits at the receiver"
    flowing = "One subscription, several bursts on their way, the server's work included"
    flooded = f"A subscriber that only counts, its default buffer, {effort.flooding_bursts} bursts in a row: lost"
    woken = "From another process's NOTIFY to the event in an idle hub"
    sent = "A call that sends one notification"
    held = f"Memory of 10,000 subscriptions{'' if effort.held == 10_000 else f', from {effort.held:,}'}"
    receiving = (ASYNCPG, LISTEN, BROADCASTER, PSYCOPG2)
    sending = (SEND_3, SEND_3_ASYNC, SEND_ASYNCPG)
    throughput_aims = (Aim(1.0, ASYNCPG), Aim(2.0, LISTEN), Aim(2.0, BROADCASTER), Aim(0.8, PSYCOPG2))
    quick = (Aim(1.3, ASYNCPG),)
    return [
        Metric("hub-fanout", "call_us", f"{message}: pg_notify", "µs", (ONE_EACH,), aims=(Aim(1 / 100, ONE_EACH),)),
        Metric(
            "hub-fanout", "delivery_us", f"{message}: all have it", "µs", (ONE_EACH,), aims=(Aim(1 / 20, ONE_EACH),)
        ),
        Metric("hub-drain", "per_second", drained, "notifications/s", receiving, True, throughput_aims),
        Metric("hub-drain", "cpu_us", f"{drained}: CPU time", "µs/notification", receiving),
        Metric("hub-flow", "per_second", flowing, "notifications/s", receiving, True, throughput_aims),
        Metric("hub-flow", "cpu_us", f"{flowing}: receiver's CPU time", "µs/notification", receiving),
        Metric("hub-wake", "p50_us", f"{woken}, p50", "µs", receiving, aims=quick),
        Metric("hub-wake", "p99_us", f"{woken}, p99", "µs", receiving, aims=quick),
        Metric("hub-notify", "p50_us", f"{sent}, p50", "µs", sending),
        Metric("hub-notify", "p99_us", f"{sent}, p99", "µs", sending),
        Metric("hub-enter", "ms", f"Listening to {effort.entered:,} channels", "ms", (LISTENS, ADD_LISTENERS)),
        Metric("hub-flood", "lost_percent", flooded, "%", aims=(Aim(0, ITSELF),)),
        Metric("hub-idle", "cpu_ms_per_s", "CPU time of an idle process", "ms/s", (LISTEN,), aims=(Aim(1, ITSELF),)),
        Metric("hub-idle", "wakings_per_s", "Wakings of an idle process", "per second", (LISTEN,)),
        Metric("hub-memory", "mib", held, "MiB", aims=(Aim(50, ITSELF),)),
    ]
