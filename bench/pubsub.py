"""The part about `PubSub`: one connection that its caller drives, beside the drivers' own loops.

Throughput is of bursts of notifications of 100 bytes that another process sends: one that waits at the receiver,
whole, when the clock starts, so that nobody else works meanwhile; and several on their way, so that the server's work
is part of it. Latency is of one notification at a time: on one connection, from before notifying to after receiving;
and from another process, whose clock is read just before it executes NOTIFY, to a receiver that was blocked.

None of the drivers' loops reconnects, notices a peer that vanished, stops at a deadline or survives a signal.
"""

from __future__ import annotations

from bench import subscribers
from bench.comparison import FASTEST, Aim, Metric
from bench.contestants import Contestant, Echo, Receiver, Role
from bench.ground import Effort
from bench.peers import asyncpg, libpq, psycopg2, psycopg3, pygresql
from bench.rounds import InTurns, Measurement, latency, throughput
from bench.turns import drain, echo, flow, wake

__all__ = ["IN_C", "LIBPQ", "PSYCOPG2", "PSYCOPG3", "PYGRESQL", "measurements", "metrics"]

PSYCOPG3, PSYCOPG2, PYGRESQL = "psycopg 3 notifies()", "psycopg2 poll()", "PyGreSQL getnotify()"
LIBPQ = "libpq in C"
PSYCOPG3_ECHO = "psycopg 3 execute(), notifies()"

RECEIVERS: tuple[Contestant[Receiver], ...] = (
    Contestant("pgpubsub events()", Role.SUBJECT, subscribers.Events),
    Contestant("pgpubsub get_events()", Role.SUBJECT, subscribers.GetEvents),
    Contestant("pgpubsub events() over psycopg2", Role.EXTRA, subscribers.EventsOverPsycopg2, "psycopg2"),
    Contestant(PSYCOPG3, Role.PEER, psycopg3.Receiver),
    Contestant(PSYCOPG2, Role.PEER, psycopg2.Receiver, "psycopg2"),
    Contestant(PYGRESQL, Role.PEER, pygresql.Receiver, "pg"),
    Contestant("asyncpg add_listener()", Role.PEER, asyncpg.Receiver, "asyncpg"),
    Contestant("psycopg 3's libpq wrapper", Role.EXTRA, psycopg3.LibpqReceiver),
    Contestant(LIBPQ, Role.LIMIT, libpq.Receiver, lacking=libpq.missing),
)
ECHOES: tuple[Contestant[Echo], ...] = (
    Contestant("pgpubsub notify(), get_event()", Role.SUBJECT, subscribers.Echo),
    Contestant(PSYCOPG3_ECHO, Role.PEER, psycopg3.Echo),
    Contestant("psycopg2 execute(), notifies", Role.PEER, psycopg2.Echo, "psycopg2"),
    Contestant("PyGreSQL, prepared, getnotify()", Role.PEER, pygresql.Echo, "pg"),
    Contestant("asyncpg execute(), a listener", Role.PEER, asyncpg.Echo, "asyncpg"),
    Contestant("psycopg 3, prepare=False", Role.EXTRA, psycopg3.UnpreparedEcho),
    Contestant(LIBPQ, Role.LIMIT, libpq.Echo, lacking=libpq.missing),
)

DRAIN = "Throughput, the burst waits at the receiver"
FLOW = "Throughput, several bursts on their way, the server's work included"
ECHO = "Latency on one connection"
WAKE = "Latency from another process's NOTIFY to a blocked receiver"

IN_C = (
    "psycopg2 makes its notifications in C. psycopg 3's wrapper, below which pgpubsub does not go, makes an object in"
    " Python for each; what that takes with nothing around it, and what libpq alone takes, stands in the figures. The"
    " rest is an event of our own, a look for frames, and the way to whoever wants the channel."
)
AWAKE = (
    "Behind the driver's reading come a look for frames, the way to whoever wants the channel, and one more look at the"
    " socket, for what came behind, in a process that was asleep a moment ago, with nothing in the processor's caches."
)
LOOKED_AT = (
    "Both have the statement prepared. notify() takes a little more than psycopg's execute(). get_event() reads the"
    " socket once more, moves what came to the inboxes, and makes sure that nobody else uses the connection."
)

RECEIVING = (FASTEST, PSYCOPG3, LIBPQ)
ECHOING = (FASTEST, PSYCOPG3_ECHO, LIBPQ)


def measurements(effort: Effort) -> list[Measurement]:
    """What is measured."""
    return [
        InTurns("pubsub-drain", drain, effort.throughput_turns, throughput, RECEIVERS),
        InTurns("pubsub-flow", flow, effort.throughput_turns, throughput, RECEIVERS),
        InTurns("pubsub-echo", echo, effort.latency_turns, latency, ECHOES),
        InTurns("pubsub-wake", wake, effort.latency_turns, latency, RECEIVERS),
    ]


def metrics(effort: Effort) -> list[Metric]:
    """What is shown."""
    quick = (Aim(0.9, FASTEST, IN_C),)
    beside_psycopg3 = (Aim(1.15, PSYCOPG3, AWAKE),)
    echoing = (Aim(1.15, PSYCOPG3_ECHO, LOOKED_AT),)
    return [
        Metric("pubsub-drain", "per_second", DRAIN, "notifications/s", RECEIVING, True, quick),
        Metric("pubsub-drain", "cpu_us", f"{DRAIN}: CPU time", "µs/notification", RECEIVING),
        Metric("pubsub-flow", "per_second", FLOW, "notifications/s", RECEIVING, True, quick),
        Metric("pubsub-flow", "cpu_us", f"{FLOW}: receiver's CPU time", "µs/notification", RECEIVING),
        Metric("pubsub-echo", "p50_us", f"{ECHO}, p50", "µs", ECHOING, aims=echoing),
        Metric("pubsub-echo", "p99_us", f"{ECHO}, p99", "µs", ECHOING, aims=echoing),
        Metric("pubsub-wake", "p50_us", f"{WAKE}, p50", "µs", RECEIVING, aims=beside_psycopg3),
        Metric("pubsub-wake", "p99_us", f"{WAKE}, p99", "µs", RECEIVING, aims=beside_psycopg3),
    ]
