"""Who handles rows of a table, with psycopg alone.

`lock_rows` is how it is mostly written: rows are locked while they are handled, and deleted in the same transaction.
If a handler takes its process with it, nothing tells. `count_attempts` writes down first that it takes them, for which
attempt and for how long, as a group does; so it commits twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import psycopg

from bench.groups.crew import Post
from bench.streams.lines import Desk
from bench.streams.places import QUEUE

__all__ = ["Handle", "count_attempts", "lock_rows", "take", "work"]

Handle: TypeAlias = Callable[[psycopg.Connection, int, Callable[[str], None]], int]
"""Has up to so many handled by a function; returns how many that were."""

LOCK = b"SELECT id, payload FROM messages ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED"
TAKE = b"""
UPDATE messages SET attempts = attempts + 1, taken_until = now() + interval '30 seconds'
 WHERE id = ANY (ARRAY(
    SELECT id FROM messages WHERE taken_until < now() ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED))
RETURNING id, payload
"""
DELETE = b"DELETE FROM messages WHERE id = ANY (%s)"


def lock_rows(connection: psycopg.Connection, batch: int, handler: Callable[[str], None]) -> int:
    """BEGIN; SELECT ... FOR UPDATE SKIP LOCKED; DELETE; COMMIT."""
    with connection.transaction():
        return _handled(connection, connection.execute(LOCK, (batch,)).fetchall(), handler)


def count_attempts(connection: psycopg.Connection, batch: int, handler: Callable[[str], None]) -> int:
    """UPDATE ... RETURNING, committed; DELETE, committed."""
    return _handled(connection, connection.execute(TAKE, (batch,)).fetchall(), handler)


def _handled(connection: psycopg.Connection, rows: list[Any], handler: Callable[[str], None]) -> int:
    for _, payload in rows:
        handler(payload)
    if rows:
        connection.execute(DELETE, ([id for id, _ in rows],))
    return len(rows)


def work(post: Post, *, handle: Handle) -> None:
    """Until there is nothing more."""
    with psycopg.connect(post.dsn, autocommit=True) as connection:
        for _ in range(6):  # after which psycopg has prepared it
            handle(connection, post.batch, _nothing)
        post.ready()
        post.go.wait()
        while number := handle(connection, post.batch, _nothing):
            post.count(number)


def take(dsn: str, desk: Desk, *, handle: Handle) -> None:
    """As they come, up to 100 together."""
    with psycopg.connect(dsn, autocommit=True) as listener, psycopg.connect(dsn, autocommit=True) as connection:
        listener.execute(f"LISTEN {QUEUE}".encode())
        for _ in range(6):
            handle(connection, 100, _nothing)
        desk.open()
        while True:
            for _ in listener.notifies(stop_after=1):
                pass
            while handle(connection, 100, desk.take):
                pass


def _nothing(payload: str) -> None:
    pass
