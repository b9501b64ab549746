"""The part about sending: many callers at once, many notifications, long ones.

Many tasks or threads each call again as soon as their last notification is committed; others send over pools of one,
four, eight and sixteen connections, of which the best counts. Payloads have 40 bytes and are different, unless they
are to be the same. All but the long ones go to one database, in which another process listens and takes what comes;
before anybody's next turn it has to have everything, and as many as were sent. A hub listens there too, to its own
heartbeats, and PostgreSQL before version 19 wakes all who listen: that is part of what it costs. The servers do not
wait for a disk, nor would they otherwise: what does nothing but notify writes nothing to wait for.

The limit is pgbench: one notification in each transaction, over as many connections as suit it best. A hub may pass
it, since it sends what many want to send in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from bench.callers import Called
from bench.comparison import FASTEST, Aim, Metric
from bench.contestants import Contestant, Publisher, Role
from bench.ground import Effort
from bench.hub import publishers
from bench.hub.part import SEND_3, SEND_3_ASYNC
from bench.peers import asyncpg, broadcaster, pgbench, psycopg2, psycopg3, sqlspec, tables
from bench.rounds import InTurns, Measurement, Together, latency, throughput
from bench.sending import large, many, ours, streaming, typed
from bench.sending.at_once import call_at_once
from bench.sending.audience import publish
from bench.sending.sizes import InAllSizes

__all__ = ["measurements", "metrics"]

ASYNC_HUB, HUB = "AsyncHub, notify()", "Hub, notify()"
UNNEST, EXECUTEMANY = "psycopg 3, unnest() by hand", "psycopg 3 executemany()"
TABLE = "psycopg 3, a row and its id"
TEXT = "plain text"

HANDED_ON = (
    "Each call wakes the hub's loop, and is woken by it, in one interpreter; threads with connections of their own wait"
    " for their sockets alone."
)
IN_PARTS = (
    "By hand, the text is stored in a row, and its id sent. Here it travels in some 130 notifications of one"
    " transaction, through PostgreSQL's queue, which gives them out one by one, and is cut and put together in Python."
    " There is no table to be made or emptied."
)
PGBENCH = "pgbench"

LIMIT = Contestant[Called](PGBENCH, Role.LIMIT, pgbench.Notifies, lacking=pgbench.missing)
BY_TASKS: tuple[Contestant[Called], ...] = (
    Contestant(ASYNC_HUB, Role.SUBJECT, ours.AsyncHub),
    Contestant("AsyncHub on uvloop", Role.EXTRA, ours.AsyncHubOnUvloop, "uvloop"),
    Contestant("asyncpg pool", Role.PEER, asyncpg.Pool, "asyncpg"),
    Contestant("psycopg 3 async pool", Role.PEER, psycopg3.AsyncPool, "psycopg_pool"),
    Contestant("broadcaster publish()", Role.PEER, broadcaster.Locked, "broadcaster"),
    Contestant("sqlspec publish()", Role.PEER, sqlspec.Pool, "sqlspec"),
    LIMIT,
)
EQUAL = (BY_TASKS[0], BY_TASKS[2], BY_TASKS[4])
BY_THREADS: tuple[Contestant[Called], ...] = (
    Contestant(HUB, Role.SUBJECT, ours.Hub),
    Contestant("psycopg 3 pool", Role.PEER, psycopg3.Pool, "psycopg_pool"),
    Contestant("psycopg2 pool", Role.PEER, psycopg2.Pool, "psycopg2"),
    LIMIT,
)
ONE_TASK: tuple[Contestant[Publisher], ...] = (
    Contestant(ASYNC_HUB, Role.SUBJECT, publishers.AsyncHub),
    Contestant(SEND_3_ASYNC, Role.PEER, psycopg3.AsyncPublisher),
)
ONE_THREAD: tuple[Contestant[Publisher], ...] = (
    Contestant(HUB, Role.SUBJECT, publishers.Hub),
    Contestant(SEND_3, Role.PEER, psycopg3.Publisher),
)
MANY: tuple[Contestant[many.Many], ...] = (
    Contestant("AsyncHub, notify_many()", Role.SUBJECT, many.AsyncHub),
    Contestant("Hub, notify_many()", Role.SUBJECT, many.Hub),
    Contestant(UNNEST, Role.PEER, psycopg3.Unnest),
    Contestant(EXECUTEMANY, Role.PEER, psycopg3.Executemany),
)
# Not compressed, which would take longer than it saves.
STORED = (
    "CREATE TABLE payloads (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload text);"
    "ALTER TABLE payloads ALTER COLUMN payload SET STORAGE EXTERNAL"
)
UNLOGGED = STORED.replace("TABLE", "UNLOGGED TABLE", 1)
THROUGH_TABLE = partial(large.Way, tables.ThroughTable, tables.by_id)
WAYS: tuple[Contestant[large.Way], ...] = (
    Contestant(ASYNC_HUB, Role.SUBJECT, partial(large.Way, large.AsyncHub, large.take_async)),
    Contestant(HUB, Role.SUBJECT, partial(large.Way, large.Hub, large.take)),
    Contestant(TABLE, Role.PEER, partial(THROUGH_TABLE, STORED)),
    Contestant("the same, UNLOGGED", Role.EXTRA, partial(THROUGH_TABLE, UNLOGGED)),
)
STREAMERS: tuple[Contestant[streaming.Streamer], ...] = (
    Contestant("AsyncHub, notify_stream()", Role.SUBJECT, streaming.AsyncHub),
    Contestant("Hub, notify_stream()", Role.SUBJECT, streaming.Hub),
)
KINDS: tuple[Contestant[Any], ...] = (
    Contestant("a Channel with a type", Role.SUBJECT, typed.Typed, "msgspec"),
    Contestant(TEXT, Role.BASELINE, typed.Text),
)


def measurements(effort: Effort) -> list[Measurement]:
    """What is measured."""
    at_once = partial(call_at_once, callers=effort.calling_tasks)
    by_threads = partial(call_at_once, callers=effort.calling_threads)
    rounds, few = effort.sending_rounds, effort.long_rounds
    return [
        InAllSizes("sending-tasks", at_once, BY_TASKS, rounds),
        InAllSizes("sending-threads", by_threads, BY_THREADS, rounds),
        InTurns("sending-one-task", publish, effort.latency_turns, latency, ONE_TASK, rounds),
        InTurns("sending-one-thread", publish, effort.latency_turns, latency, ONE_THREAD, rounds),
        InTurns("sending-many", many.send_many, 1, throughput, MANY, rounds // 2 or 1),
        Together("sending-large", partial(large.carry, record=large.ASCII), WAYS, rounds),
        Together("sending-large-unicode", partial(large.carry, record=large.UNICODE), WAYS, rounds),
        InAllSizes("sending-equal", partial(at_once, equal=True), EQUAL, few),
        InTurns("sending-stream", streaming.stream, 1, streaming.streaming, STREAMERS, 1),
        InTurns("sending-typed", typed.send, effort.throughput_turns, throughput, KINDS, rounds),
        InTurns("sending-typed-receive", typed.receive, effort.throughput_turns, throughput, KINDS, rounds),
    ]


def metrics(effort: Effort) -> list[Metric]:
    """What is shown."""
    at_once = f"{effort.calling_tasks} tasks call at once"
    threads_at_once = f"{effort.calling_threads} threads call at once"
    alone = "One call after the other"
    together = f"{effort.many:,} in one transaction"
    whole = f"{effort.large / 2**20:.3g} MiB, from the call to the whole payload in another process"
    streamed = f"{effort.streamed:,} in a row"
    typed_cost = "What a channel's type costs"
    calls, each = "calls/s", "notifications/s"
    of_tasks, of_threads, of_equal = (_peers(those) for those in (BY_TASKS, BY_THREADS, EQUAL))
    by_hand = (UNNEST, EXECUTEMANY)
    size = "connections"
    return [
        Metric("sending-tasks", "per_second", at_once, calls, of_tasks, True, (Aim(10, FASTEST),), size),
        Metric(
            "sending-threads",
            "per_second",
            threads_at_once,
            calls,
            of_threads,
            True,
            (Aim(3, FASTEST, HANDED_ON),),
            size,
        ),
        _alone("sending-one-task", f"{alone}, in a task, p50", Aim(1.3, SEND_3_ASYNC)),
        _alone("sending-one-thread", f"{alone}, in a thread, p50", Aim(2.5, SEND_3)),
        Metric("sending-many", "per_second", together, each, by_hand, True, (Aim(0.8, UNNEST),)),
        Metric("sending-many", "cpu_us", f"{together}: the sender's CPU time", "µs/notification", by_hand),
        Metric("sending-large", "ms", f"{whole}, ASCII", "ms", (TABLE,), aims=(Aim(1, TABLE, IN_PARTS),)),
        Metric(
            "sending-large-unicode",
            "ms",
            f"{whole}, of several scripts",
            "ms",
            (TABLE,),
            aims=(Aim(1, TABLE, IN_PARTS),),
        ),
        Metric("sending-equal", "per_second", f"{at_once}, all the same", calls, of_equal[1:], True, detail=size),
        Metric("sending-stream", "per_second", streamed, each, more_is_better=True),
        Metric("sending-stream", "mib", f"{streamed}: growth of the process, at most", "MiB"),
        Metric("sending-typed", "cpu_us", f"{typed_cost} the sender, in CPU time", "µs/notification", (TEXT,)),
        Metric("sending-typed-receive", "cpu_us", f"{typed_cost} the receiver", "µs/notification", (TEXT,)),
    ]


def _alone(measurement: str, title: str, aim: Aim) -> Metric:
    return Metric(measurement, "p50_us", title, "µs", (aim.beside,), aims=(aim,))


def _peers(contestants: Sequence[Contestant[Any]]) -> tuple[str, ...]:
    return (FASTEST, *[one.name for one in contestants if one.role in (Role.PEER, Role.LIMIT)])
