"""One turn of one server and its clients: it starts, they come, and then, as far as that is wanted,

- rest, each with one message that it has got: memory;
- a burst: from before the first message is sent until the last client has the last. Each is a transaction of its own,
  sent as fast as one connection can, and counts only if every client gets it;
- a steady rate, for some seconds: how old each message is when a client has it. What has not come ten seconds after the
  last was sent counts with those ten seconds.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic, monotonic_ns, sleep

import psycopg
from psycopg.conninfo import conninfo_to_dict

from bench.gateway.clients import Clients, Got, clients
from bench.gateway.serving import Server, serving
from bench.gateway.ways import Way
from bench.ground import Ground, database
from bench.processes import parent, proportional, resident, settled
from bench.rounds import Figures, falls_behind
from pgpubsub.testing import TemporaryServer

__all__ = ["BEHIND", "LATE", "LOST", "PLACE", "RATE", "greet", "visit"]

RATE = 50
"""Messages per second, where it is about delay."""

PATIENCE = 10.0
"""Seconds after the last message in which all should have come."""

ATTEMPTS = (5.0, 5.0, 10.0, 20.0, 40.0, 80.0)
"""Seconds that all have for a single message, at each attempt. Where each reads it from the database, ten thousand need
more than a few."""

BURST = 120.0
"""Seconds that a burst may take."""

CONNECTIONS = 1200
"""That there can be: enough for one for each of a thousand clients."""

LONGEST = 600
LOST, LATE, BEHIND = "lost", "late", "behind"


class Place:
    """A server of PostgreSQL with room for a connection for each of some clients."""

    def __init__(self, connections: int) -> None:
        self._server = TemporaryServer(tcp=True, settings={"max_connections": str(connections)})

    def start(self) -> None:
        self._server.__enter__()

    def close(self) -> None:
        self._server.__exit__(None, None, None)

    @contextmanager
    def serving(self, way: Way) -> Iterator[tuple[Server, psycopg.Connection]]:
        """Its server, and a connection to send with."""
        with (
            database(self._server.dsn(), way.name) as dsn,
            psycopg.connect(dsn, autocommit=True) as connection,
        ):
            way.prepare(connection)
            environment = {"BENCH_URL": _url(dsn)}
            ready = partial(_has_sessions, connection, way.sessions)
            with serving(partial(way.command, dsn), environment, ready) as server:
                yield server, connection


PLACE = partial(Place, CONNECTIONS)


def visit(make: Callable[[], Way], ground: Ground, *, number: int, burst: int, seconds: float) -> list[Figures]:
    """One turn with so many clients. `burst`: messages; `seconds`: of the steady rate; 0: it is left out."""
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    way = make()
    (place,) = ground.keep([PLACE])
    figures: dict[str, float] = {}
    with place.serving(way) as (server, connection):
        postgres = _postmaster(connection)
        before = settled(lambda: resident(server.pid)), proportional(postgres)
        began = monotonic()
        with clients(number, server.port, way.path) as crowd:
            figures["connect_seconds"] = monotonic() - began
            greet(crowd, connection, way)
            rest = settled(lambda: resident(server.pid)), proportional(postgres)
            figures["mib"], figures["postgres_mib"] = (
                max(0, now - then) / 2**20 for now, then in zip(rest, before, strict=True)
            )
            figures["kib_each"] = figures["mib"] * 1024 / number
            if burst:
                figures.update(_burst(crowd, connection, way, burst))
            if seconds:
                figures.update(_steady(crowd, connection, way, seconds))
    return [figures]


def greet(crowd: Clients, connection: psycopg.Connection, way: Way) -> None:
    """Return when each has got a message: the head of a response does not tell that there is somebody who listens."""
    for seconds in ATTEMPTS:
        crowd.count(1, seconds)
        connection.execute(way.send.encode(), (str(monotonic_ns()),))
        if not crowd.got().lost:
            return
    raise AssertionError(f"{way.name}: not everybody gets anything")


def _burst(crowd: Clients, connection: psycopg.Connection, way: Way, count: int) -> Figures:
    crowd.count(count, BURST)
    began = monotonic_ns()
    with connection.pipeline() as pipeline:
        for _ in range(count):
            connection.execute(way.send.encode(), (str(monotonic_ns()),))
            pipeline.sync()  # which commits
    got = _checked(crowd.got(), way)
    took = (got.last or monotonic_ns()) - began
    figures = {"per_second": 1e9 * max(1, got.arrived) / took}
    return {**figures, LOST: got.lost} if got.lost else figures


def _steady(crowd: Clients, connection: psycopg.Connection, way: Way, seconds: float) -> Figures:
    count = round(RATE * seconds)
    crowd.count(count, seconds + PATIENCE)
    start = monotonic()
    for index in range(count):
        sleep(max(0.0, start + index / RATE - monotonic()))
        connection.execute(way.send.encode(), (str(monotonic_ns()),))
    got = _checked(crowd.got(), way)
    figures = {f"p{percent}_ms": got.percentile(percent, PATIENCE * 1e9) / 1e6 for percent in (50, 99)}
    figures[BEHIND] = falls_behind(figures["p50_ms"] / 1e3, seconds)
    return {**figures, LATE: got.lost} if got.lost else figures


def _checked(got: Got, way: Way) -> Got:
    """What nobody does is told, if somebody does."""
    for what, count in (("out of order or twice", got.disordered), ("connections that were closed", got.closed)):
        if count:
            print(f"{way.name}: {count} {what}", file=sys.stderr)
    return got


def _has_sessions(connection: psycopg.Connection, wanted: int) -> bool:
    """Whether others have so many in its database."""
    found = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ).fetchone()
    assert found is not None
    return int(found[0]) >= wanted


def _postmaster(connection: psycopg.Connection) -> int:
    """The process that has started the one at the other end."""
    return parent(connection.info.backend_pid)


def _url(dsn: str) -> str:
    known = conninfo_to_dict(dsn)
    return f"postgresql://{known['user']}@{known['host']}:{known['port']}/{known['dbname']}"
