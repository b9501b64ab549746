"""The part about `AsyncHub` and `Hub`: many subscribers on one connection, beside libraries that do the same.

One subscription is measured as one connection is in the part `pubsub`, with payloads of 20 bytes. What is shown
besides: one message to a thousand subscribers in one process, with a connection each as the peer; a call that sends
one notification; beginning to listen to a thousand channels, as many at once as each can; and what a subscriber loses
that only counts, with the buffer it gets by default, while twenty bursts arrive in a row.

Libraries on asyncio run on asyncio's own event loop; uvloop is shown for ours and for asyncpg. A `Hub` reads what
arrives whether or not anybody receives, so it cannot have a burst wait at its socket, and takes no part there.
"""

from __future__ import annotations

from functools import partial

from bench.comparison import ITSELF, Aim, Metric
from bench.contestants import Contestant, Counter, Entrant, Publisher, Receiver, Role
from bench.ground import Effort
from bench.hub import entrants, fleet, floods, publishers, receivers, turns
from bench.peers import asyncpg, asyncpg_listen, broadcaster, libpq, psycopg2, psycopg3, pygresql, sqlspec
from bench.pubsub import IN_C, LIBPQ, PSYCOPG2, PSYCOPG3, PYGRESQL
from bench.rounds import InTurns, Measurement, Together, latency, throughput
from bench.turns import drain, flow, wake

__all__ = ["SEND_3", "SEND_3_ASYNC", "measurements", "metrics"]

ASYNCPG = "asyncpg add_listener()"
LISTEN, BROADCASTER, SQLSPEC = "asyncpg-listen, a handler", "broadcaster, a subscriber", "sqlspec, a listener"
ONE_EACH = "a connection for each, epoll"
TASKS, THREADS = "asyncio: tasks that wait, and no more", "Python: threads that wait, and no more"
SEND_3, SEND_3_ASYNC, SEND_ASYNCPG = "psycopg 3 execute()", "psycopg 3 async execute()", "asyncpg execute()"
LISTENS, ADD_LISTENERS = "psycopg 3, a LISTEN for each", "asyncpg add_listener() for each"

ONE_LISTENS = (
    "There is nothing left to save: a NOTIFY to a single connection takes as long, as `one subscriber, one connection`"
    " shows."
)
PYTHON_WAKES = (
    "Python itself does not get there, as the figures of tasks that only wait for a future each show, and those of"
    " threads that only wait for a queue each, which are slower than a thousand connections. A hub takes longer than"
    " these, to put the event into each subscriber's buffer and to take it out again."
)
BUFFERED = (
    "asyncpg calls a function for each notification, from compiled code. Here it is put into the subscriber's bounded"
    " buffer and taken out by its task. About a third of the time is libpq's wrapper, and as much is taking it out; the"
    " rest makes the event, and looks what it may be a part of and who gets it. In a `Hub`, its thread is woken, too."
)
HANDED_OVER = "Of a `Hub`, the loop takes the event from the socket, and then wakes the thread that waits for it."

HUB = Contestant[Receiver]("Hub", Role.SUBJECT, receivers.Hub)
ON_LOOPS: tuple[Contestant[Receiver], ...] = (
    Contestant("AsyncHub", Role.SUBJECT, receivers.AsyncHub),
    Contestant("AsyncHub on uvloop", Role.EXTRA, receivers.AsyncHubOnUvloop, "uvloop"),
    Contestant(ASYNCPG, Role.PEER, asyncpg.Receiver, "asyncpg"),
    Contestant("asyncpg on uvloop", Role.EXTRA, asyncpg.ReceiverOnUvloop, "uvloop"),
    Contestant(LISTEN, Role.PEER, asyncpg_listen.Receiver, "asyncpg_listen"),
    Contestant(BROADCASTER, Role.PEER, broadcaster.Receiver, "broadcaster"),
    Contestant(SQLSPEC, Role.PEER, sqlspec.Receiver, "sqlspec"),
)
BLOCKING: tuple[Contestant[Receiver], ...] = (
    Contestant(PSYCOPG3, Role.PEER, psycopg3.Receiver),
    Contestant(PSYCOPG2, Role.PEER, psycopg2.Receiver, "psycopg2"),
    Contestant(PYGRESQL, Role.PEER, pygresql.Receiver, "pg"),
    Contestant(LIBPQ, Role.LIMIT, libpq.Receiver, lacking=libpq.missing),
)
COUNTERS: tuple[Contestant[Counter], ...] = (
    Contestant("AsyncHub", Role.SUBJECT, floods.AsyncHub),
    Contestant("Hub", Role.SUBJECT, floods.Hub),
)
PUBLISHERS: tuple[Contestant[Publisher], ...] = (
    Contestant("AsyncHub, notify()", Role.SUBJECT, publishers.AsyncHub),
    Contestant("AsyncHub on uvloop", Role.EXTRA, publishers.AsyncHubOnUvloop, "uvloop"),
    Contestant("Hub, notify()", Role.SUBJECT, publishers.Hub),
    Contestant(SEND_3, Role.PEER, psycopg3.Publisher),
    Contestant(SEND_3_ASYNC, Role.PEER, psycopg3.AsyncPublisher),
    Contestant("psycopg2 execute()", Role.PEER, psycopg2.Publisher, "psycopg2"),
    Contestant("PyGreSQL query_prepared()", Role.PEER, pygresql.Publisher, "pg"),
    Contestant(SEND_ASYNCPG, Role.PEER, asyncpg.Publisher, "asyncpg"),
    Contestant("asyncpg on uvloop", Role.EXTRA, asyncpg.PublisherOnUvloop, "uvloop"),
    Contestant("broadcaster publish()", Role.PEER, broadcaster.Publisher, "broadcaster"),
    Contestant("sqlspec publish()", Role.PEER, sqlspec.Publisher, "sqlspec"),
    Contestant(LIBPQ, Role.LIMIT, libpq.Publisher, lacking=libpq.missing),
)
ENTRANTS: tuple[Contestant[Entrant], ...] = (
    Contestant("AsyncHub, a task for each", Role.SUBJECT, entrants.AsyncHub),
    Contestant("Hub, a thread for each", Role.SUBJECT, entrants.Hub),
    Contestant(LISTENS, Role.PEER, psycopg3.Entrant),
    Contestant(ADD_LISTENERS, Role.PEER, asyncpg.Entrant, "asyncpg"),
)
FLEETS: tuple[Contestant[fleet.Crew], ...] = (
    Contestant("AsyncHub, a task for each", Role.SUBJECT, partial(fleet.Crew, fleet.tasks)),
    Contestant("Hub, a thread for each", Role.SUBJECT, partial(fleet.Crew, fleet.threads)),
    Contestant(ONE_EACH, Role.PEER, partial(fleet.Crew, psycopg3.connections)),
    Contestant(TASKS, Role.LIMIT, partial(fleet.Crew, fleet.bare_tasks)),
    Contestant(THREADS, Role.LIMIT, partial(fleet.Crew, fleet.bare_threads)),
    Contestant("one subscriber, one connection", Role.EXTRA, partial(fleet.Crew, psycopg3.connections, 1)),
)


def measurements(effort: Effort) -> list[Measurement]:
    """What is measured."""
    short = turns.PAYLOAD_SIZE
    everybody = (ON_LOOPS[0], HUB, *ON_LOOPS[1:], *BLOCKING)
    return [
        Together("hub-fanout", turns.fan_out, FLEETS),
        InTurns("hub-drain", partial(drain, length=short), effort.throughput_turns, throughput, ON_LOOPS + BLOCKING),
        InTurns("hub-flow", partial(flow, length=short), effort.throughput_turns, throughput, everybody),
        InTurns("hub-wake", wake, effort.latency_turns, latency, everybody),
        InTurns("hub-notify", turns.publish, effort.latency_turns, latency, PUBLISHERS),
        InTurns("hub-enter", turns.enter, 1, turns.entering, ENTRANTS),
        InTurns("hub-flood", floods.flood, effort.throughput_turns, floods.losing, COUNTERS),
    ]


def metrics(effort: Effort) -> list[Metric]:
    """What is shown."""
    message = f"One message to {effort.subscribers:,} subscribers in one process"
    drained = "One subscription, a burst that waits at the receiver"
    flowing = "One subscription, several bursts on their way, the server's work included"
    flooded = f"A subscriber that only counts, its default buffer, {effort.flooding_bursts} bursts in a row: lost"
    woken = "From another process's NOTIFY to the event in an idle hub"
    sent = "A call that sends one notification"
    receiving = (ASYNCPG, LISTEN, BROADCASTER, SQLSPEC, PSYCOPG2, LIBPQ)
    sending = (SEND_3, SEND_3_ASYNC, SEND_ASYNCPG, LIBPQ)
    beside = (Aim(1.0, ASYNCPG, BUFFERED), Aim(2.0, LISTEN, BUFFERED), Aim(2.0, BROADCASTER, BUFFERED))
    throughput_aims = (*beside, Aim(0.8, PSYCOPG2, IN_C))
    quick = (Aim(1.3, ASYNCPG, HANDED_OVER),)
    return [
        Metric(
            "hub-fanout",
            "call_us",
            f"{message}: pg_notify",
            "µs",
            (ONE_EACH,),
            aims=(Aim(1 / 100, ONE_EACH, ONE_LISTENS),),
        ),
        Metric(
            "hub-fanout",
            "delivery_us",
            f"{message}: all have it",
            "µs",
            (ONE_EACH, TASKS, THREADS),
            aims=(Aim(1 / 20, ONE_EACH, PYTHON_WAKES),),
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
    ]
