"""The helpers of pgpubsub 0.0.5 tell as they did, without their defects."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import psycopg2
import pytest

import pgpubsub
import pgpubsub.streams
from pgpubsub import triggers
from tests.contract.faces import PATIENCE, Worker
from tests.contract.streams import identifier
from tests.contract.triggers import Admin, admin, quoted, replace_table, table, told

__all__ = ["admin", "table", "told"]


@pytest.mark.parametrize("driver", [psycopg2.connect, psycopg.connect])
def test_the_old_helpers_tell_as_they_did(dsn: str, admin: Admin, channel: str, driver: Callable[..., Any]) -> None:
    name = f"{channel}'s"
    admin.execute(f"CREATE TABLE {identifier(name)} (id int PRIMARY KEY, note text)")
    conn = driver(dsn)
    for _ in range(2):
        triggers.create_tables_notify_func(conn)
        triggers.create_table_notify_trigger(conn, name)
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(name)
        cursor = conn.cursor()
        cursor.execute(f"INSERT INTO {identifier(name)} VALUES (1, 'a')")
        cursor.execute(f"UPDATE {identifier(name)} SET note = repeat('x', 9000)")
        cursor.execute(f"DELETE FROM {identifier(name)}")
        conn.commit()
        payloads = [json.loads(event.payload) for event in (pubsub.get_event(PATIENCE) for _ in range(3)) if event]
    assert payloads == [
        {"id": 1, "note": "a", "tg_op": "INSERT"},
        {"id": 1, "tg_op": "UPDATE"},
        {"id": 1, "tg_op": "DELETE"},
    ]
    conn.close()
    admin.execute(f"DROP TABLE {identifier(name)}")


def test_the_old_helpers_take_a_table_with_any_columns_and_merge_equal_rows(
    dsn: str, admin: Admin, channel: str
) -> None:
    table = replace_table(admin, channel, "one int, its int, payload text, part text")
    triggers.create_tables_notify_func(admin)
    triggers.create_table_notify_trigger(admin, channel)
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(channel)
        admin.execute(f"INSERT INTO {quoted(table)} VALUES (1, 2, 'a', 'b'), (1, 2, 'a', 'b'), (2, 2, 'a', 'b')")
        first, second = (json.loads(event.payload) for event in (pubsub.get_event(PATIENCE) for _ in range(2)) if event)
    assert first == {"one": 1, "its": 2, "payload": "a", "part": "b", "tg_op": "INSERT"}
    assert second["one"] == 2


def test_the_old_helpers_may_be_called_by_several_at_once(dsn: str, table: tuple[str, str]) -> None:
    def install() -> None:
        with psycopg.connect(dsn) as connection:
            triggers.create_tables_notify_func(connection)
            triggers.create_table_notify_trigger(connection, table[1])

    workers = [Worker(install) for _ in range(6)]
    assert [worker.outcome() for worker in workers] == [None] * 6
