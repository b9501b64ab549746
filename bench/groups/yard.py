"""Databases on a disk of a millisecond, or on that of this machine where there is no such thing; and the crew."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from shutil import which
from time import monotonic, monotonic_ns, sleep

import psycopg
from psycopg.conninfo import make_conninfo

from bench.ground import AS_IT_IS, SLOW, Ground, database
from bench.groups.crew import PATIENCE, Crew
from bench.groups.ways import Queue, Way
from bench.streams.places import on_disk, with_everything

__all__ = ["Yard", "disk", "next_count", "settle", "yard"]

TEMPLATE = "groups"

MORE = """
ALTER TABLE messages
    ADD COLUMN attempts int NOT NULL DEFAULT 0,
    ADD COLUMN taken_until timestamptz NOT NULL DEFAULT '-infinity'
"""

AT_FIRST = {1: 50, 100: 1000}
"""Entries of which a contestant's first turn is made, by the size of batches: from it one knows how many it takes to
keep it busy for a while."""

LEAST = {1: 1000, 100: 20_000}
"""Entries of a turn of a second, by the size of batches; of each member where they take one by one. They keep the
quickest busy for half of it, and are so many that what a turn takes at its end, whatever their number, counts little:
PGQueuer's members write down their last, incomplete batches some tenths of a second later."""

LONGEST = 4
"""Times as long as it should a turn may take for the sake of these."""

ATTEMPTS = 4
"""Turns until it is known of how many one is made."""

MOST = 200_000

PROBES = 6
"""Times that members handle entries before the clock starts, after which psycopg has prepared its statements."""

PROBING = 2.0
"""Seconds after which it starts although a member, which is there, has had none: others were quicker each time."""


def disk() -> str:
    """Where it takes place."""
    return AS_IT_IS if which("cc") is None else SLOW


class Yard:
    """See the module."""

    def __init__(self, server: str, members: int) -> None:
        self._server = server
        self._stack = ExitStack()
        self._crew = Crew(members)
        self._databases: dict[str, str] = {}
        self._rates: dict[tuple[str, int, int], float] = {}
        self._passed: dict[str, int] = {}

    def start(self) -> None:
        self._stack.callback(self._crew.close)
        self._crew.start()
        template = self._stack.enter_context(database(self._server, TEMPLATE))
        with_everything(template)
        with psycopg.connect(template) as connection:
            connection.execute(MORE)

    def close(self) -> None:
        self._stack.close()

    def dsn(self, name: str, *, held: bool = False) -> str:
        """Of the database of this name. `held`: a transaction stays open in it, which has an xid."""
        if name not in self._databases:
            with psycopg.connect(self._server, autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{name}" TEMPLATE {TEMPLATE}'.encode())
            self._databases[name] = dsn = make_conninfo(self._server, dbname=name)
            if held:
                holder = self._stack.enter_context(psycopg.connect(dsn))
                holder.execute("SELECT pg_current_xact_id()")
        return self._databases[name]

    def rate(self, way: Way, name: str, members: int, batch: int, seconds: float, *, clear: bool = True) -> float:
        """Acknowledged per second, in a turn of about so many seconds. `clear`: there was nothing before."""
        known = (name, members, batch)
        dsn = self._databases[name]
        each = members if batch == 1 else 1
        if known not in self._rates:
            self._rates[known] = self.turn(way, dsn, members, batch, AT_FIRST[batch] * each, clear=clear)
        least = round(LEAST[batch] * each * seconds)
        for _ in range(ATTEMPTS):
            count = next_count(self._rates[known], seconds, batch, least)
            rate = self._rates[known] = self.turn(way, dsn, members, batch, count, clear=clear)
            if count >= least or count / rate >= LONGEST / 2 * seconds:
                break
        return rate

    def turn(self, way: Way, dsn: str, members: int, batch: int, count: int, *, clear: bool) -> float:
        """`count` entries are handled: so many per second."""
        queue = way.queue
        with psycopg.connect(dsn, autocommit=True) as connection:
            if clear:
                _clear(connection, queue)
            with self._crew.members(members, way.work, dsn, batch) as go:
                _wait(lambda: connection.execute(queue.at_work.encode(), (members,)).fetchone() is not None)
                before = self._probe(connection, queue, members, go)
                connection.execute("BEGIN")
                connection.execute(queue.fill.encode(), (count,))
                connection.execute(f"ANALYZE {queue.tables}".encode())
                start = monotonic_ns()
                connection.execute("COMMIT")
                go()
                self._crew.wait(before + count)
                if not queue.told:
                    _wait(lambda: _left(connection, queue) == 0)
                took = monotonic_ns() - start
            left = _left(connection, queue)
            assert left == 0, f"{left} of {count} are left"
        return 1e9 * count / took

    def _probe(self, connection: psycopg.Connection, queue: Queue, members: int, go: Callable[[], None]) -> int:
        """Have each member at work before the clock starts; return how many entries that took."""
        sent, times, deadline = 0, 0, monotonic() + PROBING
        while times < PROBES or (min(self._crew.handled(members)) == 0 and monotonic() < deadline):
            connection.execute(queue.fill.encode(), (members,))
            go()
            sent, times = sent + members, times + 1
            self._crew.wait(sent)
            _wait(lambda: _left(connection, queue) == 0)
        return sent

    def clear(self, way: Way, name: str) -> None:
        """Let there have been nothing in this database."""
        with psycopg.connect(self._databases[name], autocommit=True) as connection:
            _clear(connection, way.queue)

    def pass_through(self, way: Way, name: str, count: int, seconds: float) -> int:
        """Have so many handled once, or fewer if that takes longer; return how many. Nobody waits for the disk."""
        if name not in self._passed:
            dsn = self._databases[name]
            _set(dsn, f'ALTER DATABASE "{name}" SET synchronous_commit = off')
            deadline, passed = monotonic() + seconds, 0
            while passed < count and monotonic() < deadline:
                some = min(count - passed, max(1000, count // 50))
                self.turn(way, dsn, 1, 100, some, clear=False)
                passed += some
            _set(dsn, f'ALTER DATABASE "{name}" RESET synchronous_commit')
            self._passed[name] = passed
        return self._passed[name]


def next_count(rate: float, seconds: float, batch: int, least: int) -> int:
    """Of how many entries a turn is made that is to take so long, in whole batches: of `least`, unless that took far
    too long.

    >>> next_count(60_000, 1, 100, 20_000), next_count(6000, 1, 100, 20_000), next_count(250, 1, 100, 20_000)
    (60000, 20000, 1000)
    """
    entries = max(rate * seconds, min(least, rate * LONGEST * seconds))
    return min(MOST, max(1, round(entries / batch)) * batch)


def settle(queue: Queue, dsn: str) -> None:
    """Wait until all that was handed out is acknowledged."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        _wait(lambda: _left(connection, queue) == 0)


def yard(ground: Ground) -> Yard:
    """The one there is."""
    return ground.keep([_yard(on_disk(disk(), ground), ground.effort.most_connections)])[0]


@cache
def _yard(server: str, members: int) -> Callable[[], Yard]:
    return partial(Yard, server, members)


def _set(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def _clear(connection: psycopg.Connection, queue: Queue) -> None:
    connection.execute(f"TRUNCATE {queue.tables}".encode())


def _left(connection: psycopg.Connection, queue: Queue) -> int:
    row = connection.execute(queue.left.encode()).fetchone()
    assert row is not None
    return int(row[0])


def _wait(is_so: Callable[[], bool]) -> None:
    deadline = monotonic() + PATIENCE
    while not is_so():
        if monotonic() > deadline:
            raise TimeoutError(f"it has not come about within {PATIENCE} s")
        sleep(0.002)
