"""Triggers in which something goes wrong: the write succeeds, and it is a warning and a count."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgpubsub.streams
from pgpubsub import triggers
from pgpubsub.testing import TemporaryServer
from tests.contract.streams import identifier, new_role, payloads_of
from tests.contract.triggers import Admin, Told, admin, failures_of, insert, quoted, replace_table, table, told

__all__ = ["admin", "table", "told"]


def test_what_goes_wrong_is_a_warning_and_counted_and_told_in_short(
    admin: Admin, table: tuple[str, str], channel: str, told: Told
) -> None:
    triggers.install(admin, table, to=channel, when="10 / NEW.weight > 1")
    warnings: list[str | None] = []
    admin.execute("SET client_min_messages = warning")
    admin.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
    insert(admin, table, (1, "a", 5), (2, "b", 0))
    assert admin.execute(f"SELECT count(*) FROM {quoted(table)}").fetchone() == (2,)
    assert [(change["op"], change["reduced"]) for change in told()] == [("insert", None), ("insert", "nothing")]
    (warning,) = warnings
    assert warning is not None
    assert "could not be told in full: division by zero" in warning
    (found,) = [one for one in triggers.installed(admin) if one.table == table]
    assert found.failures == 1


@pytest.mark.parametrize("level", ["row", "statement"])
def test_a_backslash_in_a_condition_is_one_whatever_the_writer_has_set(
    dsn: str, admin: Admin, table: tuple[str, str], channel: str, told: Told, level: Any
) -> None:
    role = f"writer of {channel}"
    new_role(admin, role, f"ALL ON TABLE {quoted(table)}")
    admin.execute(f"ALTER ROLE {identifier(role)} SET standard_conforming_strings = off")
    admin.execute(f"ALTER ROLE {identifier(role)} SET escape_string_warning = off")
    when = r"NEW.state <> '\' AND NEW.state ~ '^\d+$'"
    admin.execute("SET standard_conforming_strings = off")
    triggers.install(admin, table, to=channel, level=level, when=when)
    triggers.install(admin, table, to=channel, level=level, when=when, name="another")
    with psycopg.connect(make_conninfo(dsn, user=role), autocommit=True) as writer:
        insert(writer, table, (1, "a", 5), (2, "12", 5))
    admin.execute("SET standard_conforming_strings = on")
    insert(admin, table, (3, "13", 5), (4, "\\", 5))
    assert [one["key"] or one["keys"][0] for one in told()] == [{"id": 2}] * 2 + [{"id": 3}] * 2
    assert failures_of(admin, table) == [0, 0]
    admin.execute(f"DROP OWNED BY {identifier(role)}")
    admin.execute(f"DROP ROLE {identifier(role)}")


def test_a_renamed_column_is_no_reason_to_fail(admin: Admin, table: tuple[str, str], channel: str, told: Told) -> None:
    triggers.install(admin, table, to=channel)
    admin.execute(f"ALTER TABLE {quoted(table)} RENAME id TO number")
    insert(admin, table, (1, "a", 5))
    assert [change["reduced"] for change in told()] == ["nothing"]
    triggers.install(admin, table, to=channel)
    insert(admin, table, (2, "a", 5))
    assert [change["key"] for change in told()] == [{"number": 2}]


def test_a_watched_column_that_was_renamed_is_no_reason_to_fail(
    admin: Admin, table: tuple[str, str], channel: str, told: Told
) -> None:
    triggers.install(admin, table, to=channel, columns=["state"])
    insert(admin, table, (1, "a", 5))
    admin.execute(f"ALTER TABLE {quoted(table)} RENAME state TO condition")
    admin.execute(f"UPDATE {quoted(table)} SET weight = 6")
    assert [change["reduced"] for change in told()] == [None, "nothing"]


def test_a_client_that_has_no_letters_for_the_warning_writes_all_the_same(
    admin: Admin, channel: str, told: Told
) -> None:
    table = ("public", f"日本 {channel}")
    admin.execute(f"CREATE TABLE {quoted(table)} (id int PRIMARY KEY)")
    triggers.install(admin, table, to=channel, when="1 / (NEW.id - 1) > 0")
    admin.execute(f"CREATE VIEW {identifier(f'view {channel}')} AS SELECT * FROM {quoted(table)}")
    admin.execute("SET client_min_messages = warning")
    admin.execute("SET client_encoding = 'LATIN1'")
    admin.execute(f"INSERT INTO {identifier(f'view {channel}')} VALUES (1)")
    admin.execute("SET client_encoding = 'UTF8'")
    assert [change["reduced"] for change in told()] == ["nothing"]


@pytest.mark.parametrize("to_stream", [False, True])
def test_a_great_many_rows_take_little_memory(
    installed: str, admin: Admin, table: tuple[str, str], channel: str, to_stream: bool
) -> None:
    triggers.install(admin, table, to=triggers.stream(channel) if to_stream else channel)
    with admin.transaction():
        admin.execute(f"INSERT INTO {quoted(table)} SELECT n, 'open', n FROM generate_series(1, 10000) AS n")
        used = admin.execute("SELECT sum(total_bytes) FROM pg_backend_memory_contexts").fetchone()
    assert used is not None
    assert used[0] < 40 << 20, "each row keeps some kilobytes"


def test_the_tables_owner_makes_partitions_of_it(dsn: str, admin: Admin, channel: str, told: Told) -> None:
    role, name = f"owner of {channel}", f"owned {channel}"
    new_role(admin, role, "CREATE ON SCHEMA public")
    admin.execute(f"CREATE TABLE {identifier(name)} (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    admin.execute(f"ALTER TABLE {identifier(name)} OWNER TO {identifier(role)}")
    triggers.install(admin, ("public", name), to=channel, definer=True)
    with psycopg.connect(make_conninfo(dsn, user=role), autocommit=True) as owner:
        owner.execute(
            f"CREATE TABLE {identifier(f'part {channel}')} PARTITION OF {identifier(name)} FOR VALUES FROM (0) TO (9)"
        )
        owner.execute(f"INSERT INTO {identifier(name)} VALUES (1)")
    assert [change["key"] for change in told()] == [{"id": 1}]
    admin.execute(f"DROP OWNED BY {identifier(role)}")
    admin.execute(f"DROP ROLE {identifier(role)}")


@pytest.mark.parametrize("level", ["row", "statement"])
def test_whoever_may_not_append_may_write_all_the_same(
    dsn: str, installed: str, admin: Admin, table: tuple[str, str], channel: str, level: Any
) -> None:
    role = f"writer of {channel}"
    new_role(admin, role, f"ALL ON TABLE {quoted(table)}")
    triggers.install(admin, table, to=triggers.stream(channel), level=level)
    with psycopg.connect(make_conninfo(dsn, user=role), autocommit=True) as writer:
        writer.execute("SET client_min_messages = error")
        insert(writer, table, (1, "a", 5))
        assert payloads_of(admin, channel) == []
        triggers.install(admin, table, to=triggers.stream(channel), level=level, definer=True)
        insert(writer, table, (2, "a", 5))
    (payload,) = payloads_of(admin, channel)
    assert json.loads(payload)["key"] == {"id": 2}
    (found,) = [one for one in triggers.installed(admin) if one.table == table]
    assert (found.failures, found.definer) == (1, True)
    admin.execute(f"DROP OWNED BY {identifier(role)}")
    admin.execute(f"DROP ROLE {identifier(role)}")


@pytest.mark.parametrize("level", ["row", "statement"])
def test_whoever_may_not_see_the_schema_is_told_of_and_counted_all_the_same(
    dsn: str, admin: Admin, channel: str, told: Told, level: Any
) -> None:
    role, schema, view = f"writer of {channel}", f"hidden {channel}", f"view {channel}"
    admin.execute(f"CREATE SCHEMA {identifier(schema)}")
    table = (schema, "orders")
    admin.execute(f"CREATE TABLE {quoted(table)} (id int PRIMARY KEY)")
    admin.execute(f"CREATE VIEW {identifier(view)} AS SELECT * FROM {quoted(table)}")
    new_role(admin, role, f"ALL ON TABLE {identifier(view)}")
    triggers.install(admin, table, to=channel, level=level, when="1 / (coalesce(NEW.id, OLD.id) - 5) < 9")
    with psycopg.connect(make_conninfo(dsn, user=role), autocommit=True) as writer:
        writer.execute("SET client_min_messages = error")
        insert(writer, ("public", view), (1,), (5,))
        writer.execute(f"UPDATE {identifier(view)} SET id = 2 WHERE id = 1")
        writer.execute(f"DELETE FROM {identifier(view)} WHERE id = 2")
    found = told()
    assert [(one["op"], one["reduced"]) for one in found] == [
        ("insert", None),
        ("insert", "nothing"),
        ("update", None),
        ("delete", None),
    ]
    assert failures_of(admin, table) == [1]
    admin.execute(f"ALTER SCHEMA {identifier(schema)} RENAME TO {identifier('new ' + schema)}")
    admin.execute(f"TRUNCATE {quoted(('new ' + schema, 'orders'))}")
    insert(admin, ("new " + schema, "orders"), (5,))
    assert failures_of(admin, ("new " + schema, "orders")) == [2]
    admin.execute(f"DROP SCHEMA {identifier('new ' + schema)} CASCADE")
    admin.execute(f"DROP OWNED BY {identifier(role)}")
    admin.execute(f"DROP ROLE {identifier(role)}")


@pytest.mark.parametrize("level", ["row", "statement"])
@pytest.mark.parametrize("to_stream", [False, True])
@pytest.mark.usefixtures("installed")
def test_a_cast_to_json_that_is_broken_is_no_reason_to_fail(
    admin: Admin, channel: str, told: Told, level: Any, to_stream: bool
) -> None:
    kind, cast = identifier(f"mood {channel}"), identifier(f"cast {channel}")
    admin.execute(f"CREATE TYPE {kind} AS ENUM ('good')")
    admin.execute(
        f"CREATE FUNCTION {cast}({kind}) RETURNS json LANGUAGE plpgsql AS $$ BEGIN ASSERT false, 'broken'; END $$"
    )
    admin.execute(f"CREATE CAST ({kind} AS json) WITH FUNCTION {cast}({kind})")
    table = replace_table(admin, f"moods {channel}", f"id {kind} PRIMARY KEY")
    triggers.install(admin, table, to=triggers.stream(channel) if to_stream else channel, level=level)
    insert(admin, table, ("good",))
    assert admin.execute(f"SELECT count(*) FROM {quoted(table)}").fetchone() == (1,)
    found = list(map(json.loads, payloads_of(admin, channel))) if to_stream else told()
    assert [(one["op"], one["key"], one["reduced"]) for one in found] == [("insert", None, "nothing")]
    assert failures_of(admin, table) == [1]
    admin.execute(f"DROP TYPE {kind} CASCADE")


@pytest.mark.since_postgresql(17)
@pytest.mark.parametrize("target", ["row", "statement", "stream", "tables_notify_func"])
def test_a_full_queue_of_notifications_is_no_reason_to_fail(small_queue: TemporaryServer, target: str) -> None:
    dsn = small_queue.dsn()
    warnings: list[str | None] = []
    with psycopg.connect(dsn) as culprit, psycopg.connect(dsn, autocommit=True) as admin:
        table = replace_table(admin, "orders", "id int PRIMARY KEY")
        if target == "stream":
            pgpubsub.streams.install(admin)
            triggers.install(admin, table, to=triggers.stream("orders"))
        elif target == "tables_notify_func":
            triggers.create_tables_notify_func(admin)
            triggers.create_table_notify_trigger(admin, "orders")
        else:
            triggers.install(admin, table, to="orders", level="row" if target == "row" else "statement")
        culprit.execute("LISTEN orders")
        culprit.commit()
        culprit.execute("SELECT 1")  # in a transaction, where it gets nothing and holds up the queue
        while usage(admin) <= 0.9:
            admin.execute("SELECT pg_notify('orders', repeat('x', 7000))")
        admin.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
        insert(admin, table, (1,))
        assert admin.execute("SELECT count(*) FROM orders").fetchone() == (1,)
        if target == "stream":  # readers find it when they look next
            assert (len(payloads_of(admin, "orders")), warnings, failures_of(admin, table)) == (1, [], [0])
        else:
            assert [warning for warning in warnings if warning and "queue" in warning and "nearly full" in warning]
            assert failures_of(admin, table) == ([] if target == "tables_notify_func" else [1])


def usage(admin: Admin) -> float:
    row = admin.execute("SELECT pg_notification_queue_usage()").fetchone()
    assert row is not None
    return float(row[0])


def test_a_column_of_another_type_is_told_of_by_all_when_it_was_installed_again(
    dsn: str, admin: Admin, table: tuple[str, str], channel: str, told: Told
) -> None:
    triggers.install(admin, table, to=channel)
    with psycopg.connect(dsn, autocommit=True) as other:  # which keeps how it reads the columns
        insert(admin, table, (1, "a", 5))
        insert(other, table, (2, "a", 5))
        admin.execute(f"ALTER TABLE {quoted(table)} ALTER id TYPE bigint, ALTER weight TYPE text")
        triggers.install(admin, table, to=channel)
        insert(admin, table, (3, "a", "5"))
        insert(other, table, (2**40, "a", "5"))
    assert [(one["key"]["id"], one["reduced"]) for one in told()] == [(1, None), (2, None), (3, None), (2**40, None)]
