"""The part about streams, beside tables by hand and job queues.

Many tasks or threads append at once, each waiting for its commit; others insert over pools, of which the best size
counts, with a notification in the same transaction or without one. That takes place on two servers: on one each flush
of the log takes a millisecond (`fdatasync` is replaced by a pause), as on many a cloud's disk, so that nobody profits
from a disk that happens to be idle; the other has this machine's own. Appends at a steady rate are timed until a
reader in another process has the entry, from the call and from its acknowledged commit. A million entries are caught
up with.

By hand, a notification goes out when a row is committed, and whoever receives it selects what has higher ids: rows
that are committed in another order are skipped, which nobody notices. That is not the same work, and is told all the
same. The limit is pgbench with the same INSERT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from shutil import which

from bench.callers import Called
from bench.comparison import Aim, Metric
from bench.contestants import Contestant, Role
from bench.ground import AS_IT_IS, SLOW, Effort
from bench.peers import asyncpg, pgbench, pgmq, pgqueuer, procrastinate, tables
from bench.rounds import InTurns, Measurement, latency, throughput
from bench.streams import appends, arrivals, catch_up, growth, lines, writers
from bench.streams.places import DISKS

__all__ = ["measurements", "metrics"]

ASYNCPG_INSERT, PSYCOPG_INSERT = "asyncpg pool, INSERT", "psycopg 3 pool, INSERT"
ASYNCPG_NOTIFY, PSYCOPG_NOTIFY = "asyncpg pool, INSERT + pg_notify", "psycopg 3 pool, INSERT + pg_notify"
COPY, SELECT = "COPY, copy.rows()", "keyset SELECT, psycopg 3"
ASYNCPG_LINE, PSYCOPG_LINE = "asyncpg by hand", "psycopg 3 by hand"

LIMITS: tuple[Contestant[Called], ...] = (
    Contestant("pgbench, INSERT", Role.LIMIT, partial(pgbench.Inserts, notify=False), lacking=pgbench.missing),
    Contestant(
        "pgbench, INSERT + pg_notify", Role.LIMIT, partial(pgbench.Inserts, notify=True), lacking=pgbench.missing
    ),
)
BY_TASKS: tuple[Contestant[Called], ...] = (
    Contestant("AsyncHub, append()", Role.SUBJECT, writers.AsyncHub),
    Contestant(ASYNCPG_INSERT, Role.PEER, partial(asyncpg.Inserts, notify=False), "asyncpg"),
    Contestant(PSYCOPG_INSERT, Role.PEER, partial(tables.AsyncInserts, notify=False), "psycopg_pool"),
    Contestant(ASYNCPG_NOTIFY, Role.PEER, partial(asyncpg.Inserts, notify=True), "asyncpg"),
    Contestant(PSYCOPG_NOTIFY, Role.PEER, partial(tables.AsyncInserts, notify=True), "psycopg_pool"),
    Contestant("procrastinate, defer", Role.PEER, procrastinate.Defers, "procrastinate"),
    Contestant("PGQueuer, enqueue", Role.PEER, pgqueuer.Enqueues, "pgqueuer"),
    Contestant("pgmq, send", Role.PEER, pgmq.Sends, "pgmq"),
    *LIMITS,
)
BY_THREADS: tuple[Contestant[Called], ...] = (
    Contestant("Hub, append()", Role.SUBJECT, writers.Hub),
    Contestant(PSYCOPG_INSERT, Role.PEER, partial(tables.Inserts, notify=False), "psycopg_pool"),
    Contestant(PSYCOPG_NOTIFY, Role.PEER, partial(tables.Inserts, notify=True), "psycopg_pool"),
)
READERS: tuple[Contestant[catch_up.Read], ...] = (
    Contestant("AsyncHub, read()", Role.SUBJECT, lambda: catch_up.read_async),
    Contestant("Hub, read()", Role.SUBJECT, lambda: catch_up.read_blocking),
    Contestant(COPY, Role.PEER, lambda: catch_up.copy_rows),
    Contestant("the same, binary", Role.PEER, lambda: partial(catch_up.copy_rows, binary=True)),
    Contestant(SELECT, Role.PEER, lambda: catch_up.select),
    Contestant("keyset SELECT, binary", Role.PEER, lambda: partial(catch_up.select, binary=True)),
    Contestant("COPY, lines as they are", Role.EXTRA, lambda: catch_up.copy_raw),
)
LINES: tuple[Contestant[lines.Way], ...] = (
    Contestant("AsyncHub, append() and read()", Role.SUBJECT, partial(lines.Way, lines.hub_sends, lines.take_async)),
    Contestant("read by a Hub", Role.SUBJECT, partial(lines.Way, lines.hub_sends, lines.take)),
    Contestant(ASYNCPG_LINE, Role.PEER, partial(lines.Way, asyncpg.sends, asyncpg.take), "asyncpg"),
    Contestant(PSYCOPG_LINE, Role.PEER, partial(lines.Way, tables.sends, tables.take), "psycopg_pool"),
    Contestant("PGQueuer", Role.PEER, partial(lines.Way, pgqueuer.sends, pgqueuer.take), "pgqueuer"),
)
CARRIED = (
    "By hand, one statement stores and one select finds. A reader's page crosses from the task that reads to the one"
    " that waits; it also takes the snapshot that what it read belongs to, so that nothing is skipped. Most of"
    " the difference is in the append, and in the way from the task that reads to who waits."
)
ENTRIES = (
    "The select yields tuples, and what it skips is not noticed. A reader asks for what it has not read, by transaction"
    " ids, makes each an `Entry` with its position, and hands it to another task or thread."
)
LOCKED = (
    "With threads: appends share commits, so the disk does not limit them, but each call crosses to the hub's loop and"
    " back, and 256 threads share the interpreter lock with it."
)
SLOWLY = 100
"""Appends per second that leave nobody out of breath."""
SHORTEST = 10
"""Microseconds: what is less stands for an entry that was there before its append was known to be stored."""
HELD = "a transaction open"


def measurements(effort: Effort) -> list[Measurement]:
    """What is measured."""
    rounds = effort.stream_rounds
    found: list[Measurement] = []
    for disk in _disks(effort):
        by_tasks, by_threads = effort.appending_tasks, effort.appending_threads
        found += [
            appends.Appends(f"streams-append-{disk}", disk, by_tasks, BY_TASKS, rounds),
            appends.Appends(f"streams-append-threads-{disk}", disk, by_threads, BY_THREADS, rounds),
        ]
    found += [
        arrivals.Arrivals(f"streams-arrive-{disk}", disk, effort.arriving, LINES, rounds) for disk in _disks(effort)
    ]
    return [
        *found,
        InTurns("streams-catch-up", catch_up.read, 1, throughput, READERS, rounds),
        InTurns("streams-growth", growth.read_live, effort.latency_turns, latency, _stocks(effort), rounds),
    ]


def metrics(effort: Effort) -> list[Metric]:
    """What is shown."""
    found = []
    for disk in _disks(effort):
        for callers in effort.appending_tasks:
            found.append(_appends(f"streams-append-{disk}", disk, callers, "tasks", BY_TASKS))
        for callers in effort.appending_threads:
            found.append(_appends(f"streams-append-threads-{disk}", disk, callers, "threads", BY_THREADS))
    for disk in _disks(effort):
        for rate in effort.arriving:
            # Who is overloaded hears of a commit late, which would look as if the entry came early.
            clocks = ("call", "commit") if rate == SLOWLY else ("call",)
            found += [_arrival(disk, rate, since, percent) for since in clocks for percent in (50, 99)]
    caught_up = f"Catching up with {effort.stored:,} entries of 100 bytes"
    peers = tuple(one.name for one in READERS if one.role is Role.PEER)
    aims = (Aim(0.5, COPY), Aim(1, SELECT, ENTRIES))
    smallest = _stocks(effort)[0].name
    return [
        *found,
        Metric("streams-catch-up", "per_second", caught_up, "entries/s", peers, True, aims),
        Metric("streams-catch-up", "cpu_us", f"{caught_up}: CPU time of the reader", "µs/entry", peers),
        Metric(
            "streams-growth",
            "p50_us",
            "From an append to the entry in a reader, by the number of entries stored, p50",
            "µs",
            (smallest,),
            aims=(Aim(1.5, smallest),),
        ),
    ]


def _appends(measurement: str, disk: str, callers: int, kind: str, contestants: Sequence[Contestant[Called]]) -> Metric:
    what = f"{callers:,} {kind if callers > 1 else kind.removesuffix('s')} append, {DISKS[disk]}"
    peers = tuple(one.name for one in contestants if one.role in (Role.PEER, Role.LIMIT))
    aims: tuple[Aim, ...] = ()
    if callers == 256 and disk == SLOW:
        wanted = {ASYNCPG_NOTIFY: 20, PSYCOPG_NOTIFY: 20, ASYNCPG_INSERT: 3, PSYCOPG_INSERT: 3}
        aims = tuple(Aim(limit, peer, LOCKED) for peer, limit in wanted.items() if peer in peers)
    return Metric(measurement, appends.figure(callers), what, "appends/s", peers, True, aims)


def _arrival(disk: str, rate: int, since: str, percent: int) -> Metric:
    begin = {"call": "From the call", "commit": "From the acknowledged commit"}[since]
    what = f"{begin} of an append to the entry, {rate:,}/s, {DISKS[disk]}, p{percent}"
    peers = tuple(one.name for one in LINES if one.role is Role.PEER)
    aims = tuple(Aim(1.3, peer, CARRIED) for peer in (ASYNCPG_LINE, PSYCOPG_LINE)) if percent == 50 else ()
    figure, behind = arrivals.figure(rate, since, percent), arrivals.behind(rate)
    return Metric(f"streams-arrive-{disk}", figure, what, "µs", peers, aims=aims, least=SHORTEST, behind=behind)


def _stocks(effort: Effort) -> Sequence[Contestant[growth.Stock]]:
    """The smallest is what the others are compared with."""
    sizes, uncommitted = (1000, effort.stored, *effort.stored_too), min(100_000, effort.stored)
    kinds: Mapping[str, Callable[[int], growth.Stock]] = {
        "": growth.Stock,
        f", {HELD}": partial(growth.Stock, held=True),
    }
    stocks = [(f"{size:,}{kind}", make(size)) for kind, make in kinds.items() for size in sizes]
    crowded = growth.Stock(effort.stored, held=True, uncommitted=uncommitted)
    stocks.append((f"{effort.stored:,} and {uncommitted:,} uncommitted", crowded))
    return [
        Contestant(name, Role.SUBJECT if number else Role.BASELINE, partial(_same, stock))
        for number, (name, stock) in enumerate(stocks)
    ]


def _same(stock: growth.Stock) -> growth.Stock:
    return stock


def _disks(effort: Effort) -> Sequence[str]:
    """Those that can be had: to slow one down takes a C compiler."""
    return effort.disks if _can_be_slow() else [AS_IT_IS]


@cache
def _can_be_slow() -> bool:
    if which("cc") is None:
        print(f"skipped: {DISKS[SLOW]} (there is no C compiler)")
    return which("cc") is not None
