"""Table changes as messages: what they say, whatever the table is called and holds, and that the write never fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import psycopg
import psycopg2
import pytest
import sqlalchemy
from psycopg.conninfo import make_conninfo

import pgpubsub
import pgpubsub.streams
from pgpubsub import Change, Channel, Hub, triggers
from pgpubsub.triggers import ToStream
from tests.contract.faces import PATIENCE, Worker
from tests.contract.owners import OWNERS, connected, options_of
from tests.contract.streams import identifier, new_role, payloads_of

Admin = psycopg.Connection[Any]

ODD_NAMES = [
    'a "quoted" one',
    "it's",
    "100% %s {wanted} [[key]]",
    "日本語",
    "$pgpubsub$",
    "back\\slash",
    "Mixed",
    "x" * 63,
    "new",
    "old",
]


@pytest.fixture
def admin(dsn: str) -> Iterator[Admin]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET client_min_messages = error")
        yield connection


@pytest.fixture
def table(admin: Admin, channel: str) -> Iterator[tuple[str, str]]:
    """A table of one's own, with a key and two columns."""
    name = f"table of {channel}"
    admin.execute(f"CREATE TABLE {identifier(name)} (id int PRIMARY KEY, state text, weight numeric)")
    yield "public", name
    admin.execute(f"DROP TABLE {identifier(name)} CASCADE")


@pytest.fixture
def told(dsn: str, channel: str) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Returns what has been told on the channel since it was asked last."""
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(channel)

        def get() -> list[dict[str, Any]]:
            pubsub.notify(channel, "that is all")
            found = []
            while (event := pubsub.get_event(PATIENCE)) is not None and event.payload != "that is all":
                found.append(json.loads(event.payload))
            return found

        yield get


Told = Callable[[], list[dict[str, Any]]]


def quoted(table: tuple[str, str]) -> str:
    return ".".join(map(identifier, table))


def insert(admin: Admin, table: tuple[str, str], *rows: Sequence[Any]) -> None:
    for row in rows:
        values = ", ".join(["%s"] * len(row))
        admin.execute(f"INSERT INTO {quoted(table)} VALUES ({values})", row)


def essence(change: dict[str, Any]) -> tuple[Any, ...]:
    """All but the table, the transaction and the time."""
    return tuple(change[part] for part in ("op", "key", "row", "old", "changed", "reduced"))


# -- rows to a channel


def test_changes_of_rows_are_told(admin: Admin, table: tuple[str, str], channel: str, told: Told) -> None:
    triggers.install(admin, table, to=channel, on=["insert", "update", "delete", "truncate"])
    with admin.transaction():
        insert(admin, table, (1, "open", 2.5))
        admin.execute(f"UPDATE {quoted(table)} SET state = 'paid'")
        admin.execute(f"UPDATE {quoted(table)} SET id = 2")
        admin.execute(f"DELETE FROM {quoted(table)}")
        admin.execute(f"TRUNCATE {quoted(table)}")
        xid = admin.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    changes = told()
    paid = {"id": 1, "state": "paid", "weight": 2.5}
    assert list(map(essence, changes)) == [
        ("insert", {"id": 1}, {**paid, "state": "open"}, None, None, None),
        ("update", {"id": 1}, paid, None, {"state": "paid"}, None),
        ("update", {"id": 2}, {**paid, "id": 2}, None, {"id": 2}, None),
        ("delete", {"id": 2}, None, None, None, None),
        ("truncate", None, None, None, None, None),
    ]
    assert [change.get("old_key") for change in changes] == [None, None, {"id": 1}, None, None]
    assert {(change["schema"], change["table"], change["xid"]) for change in changes} == {
        (*table, xid[0] if xid else 0)
    }


def test_what_was_is_told_if_asked_for(admin: Admin, table: tuple[str, str], channel: str, told: Told) -> None:
    triggers.install(admin, table, to=channel, old=True, columns=["state"], on=["update", "delete"])
    insert(admin, table, (1, "open", 2.5))
    admin.execute(f"UPDATE {quoted(table)} SET state = 'paid', weight = 3")
    admin.execute(f"DELETE FROM {quoted(table)}")
    assert list(map(essence, told())) == [
        ("update", {"id": 1}, {"state": "paid"}, {"state": "open"}, {"state": "paid"}, None),
        ("delete", {"id": 1}, None, {"state": "paid"}, None, None),
    ]


def test_an_update_that_changes_nothing_that_is_watched_is_not_told(
    admin: Admin, table: tuple[str, str], channel: str, told: Told
) -> None:
    triggers.install(admin, table, to=channel, columns=["state"], on=["update"])
    insert(admin, table, (1, "open", 2.5), (2, None, 1))
    admin.execute(f"UPDATE {quoted(table)} SET weight = 3, state = state")
    assert told() == []
    admin.execute(f"UPDATE {quoted(table)} SET id = id + 10, state = coalesce(state, 'new')")
    assert [change["key"] for change in told()] == [{"id": 11}, {"id": 12}]


def test_the_key_alone_may_be_sent(admin: Admin, table: tuple[str, str], channel: str, told: Told) -> None:
    triggers.install(admin, table, to=channel, key_only=True)
    insert(admin, table, (1, "open", 2.5))
    admin.execute(f"UPDATE {quoted(table)} SET state = 'paid'")
    assert list(map(essence, told())) == [(op, {"id": 1}, None, None, None, None) for op in ("insert", "update")]


def test_a_condition_decides_what_is_told(admin: Admin, table: tuple[str, str], channel: str, told: Told) -> None:
    triggers.install(
        admin, table, to=channel, when="NEW.state = 'paid' OR TG_OP = 'DELETE' AND OLD.weight > 2 -- and no more"
    )
    insert(admin, table, (1, "open", 3), (2, "paid", 1))
    admin.execute(f"UPDATE {quoted(table)} SET state = 'paid' WHERE id = 1")
    admin.execute(f"DELETE FROM {quoted(table)}")
    assert [(change["op"], change["key"]["id"]) for change in told()] == [("insert", 2), ("update", 1), ("delete", 1)]


def test_what_is_told_decodes_to_a_type_of_the_users(
    dsn: str, admin: Admin, table: tuple[str, str], channel: str
) -> None:
    parcels = Channel(channel, Change[Parcel])
    triggers.install(admin, table, to=parcels)
    with Hub(dsn) as hub, hub.subscribe(parcels) as events:
        insert(admin, table, (17, "packed", Decimal("2.5")))
        event = events.get(PATIENCE)
        assert isinstance(event, pgpubsub.Notify), event
        change = event.payload
        assert (change.op, change.row, change.key, change.reduced) == (
            "insert",
            Parcel(17, "packed", 2.5),
            {"id": 17},
            None,
        )
        admin.execute(f"UPDATE {quoted(table)} SET state = repeat('x', 8000)")
        event = events.get(PATIENCE)
        assert isinstance(event, pgpubsub.Notify), event
        assert (event.payload.row, event.payload.reduced) == (None, "key")


@dataclass
class Parcel:
    id: int
    state: str | None
    weight: float


def test_the_json_schema_in_the_manual_says_what_the_type_says() -> None:
    path = Path(__file__).parents[2] / "docs" / "change.schema.json"
    written = json.loads(path.read_text("utf-8"))
    for one in written["properties"].values():
        assert one.pop("description")
    (made,) = msgspec.json.schema(Change[dict[str, Any]])["$defs"].values()
    assert (written["properties"], written["required"]) == (made["properties"], made["required"])


# -- too long


@pytest.mark.parametrize("letter", ["x", "é", '"', "\n", "😀"])
def test_what_is_too_long_is_reduced_when_it_is_and_not_before(
    admin: Admin, table: tuple[str, str], channel: str, dsn: str, letter: str
) -> None:
    triggers.install(admin, table, to=channel, on=["insert"])
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(channel)
        insert(admin, table, (1, "", 1))
        shortest = pubsub.get_event(PATIENCE)
        assert shortest is not None
        room = 7999 - len(shortest.payload.encode())
        each = len(json.dumps(letter, ensure_ascii=False).encode()) - 2
        for number, count in enumerate(range((room - 12) // each, room // each + 4)):
            insert(admin, table, (2 + number, letter * count, 1))
            event = pubsub.get_event(PATIENCE)
            assert event is not None
            change = json.loads(event.payload)
            size = len(event.payload.encode())
            if change["reduced"] is None:
                assert change["row"]["state"] == letter * count
                assert size <= 7999
            else:
                assert (change["reduced"], change["row"], change["key"]) == ("key", None, {"id": 2 + number})
                assert count * each > room - 8  # as exact as the time, of which trailing zeros are left out
        assert change["reduced"] == "key"


def test_it_is_reduced_to_what_has_changed_first(
    admin: Admin, table: tuple[str, str], channel: str, told: Told
) -> None:
    triggers.install(admin, table, to=channel, old=True)
    insert(admin, table, (1, "x" * 3900, 1))
    admin.execute(f"UPDATE {quoted(table)} SET weight = 2")
    admin.execute(f"UPDATE {quoted(table)} SET state = repeat('y', 5000)")
    admin.execute(f"UPDATE {quoted(table)} SET weight = 3")
    admin.execute(f"UPDATE {quoted(table)} SET state = repeat('z', 8000)")
    admin.execute(f"DELETE FROM {quoted(table)}")
    found = [(change["reduced"], change["changed"]) for change in told()]
    assert found == [
        (None, None),
        (None if len("x" * 3900) * 2 + 400 < 7999 else "row", {"weight": 2}),
        ("changed", {"state": "y" * 5000}),
        ("row", {"weight": 3}),
        ("key", None),
        ("key", None),
    ]


def test_a_key_that_is_too_long_is_left_out(admin: Admin, channel: str, told: Told) -> None:
    name = f"long {channel}"
    admin.execute(f"CREATE TABLE {identifier(name)} (id text, PRIMARY KEY (id))")
    triggers.install(admin, ("public", name), to=channel)
    admin.execute(f"ALTER TABLE {identifier(name)} DROP CONSTRAINT {identifier(name + '_pkey')}")
    admin.execute(f"INSERT INTO {identifier(name)} VALUES (repeat('x', 8000))")
    assert list(map(essence, told())) == [("insert", None, None, None, None, "nothing")]


# -- any table


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_names_will_do(admin: Admin, dsn: str, channel: str, name: str) -> None:
    schema = f"s {channel}"
    admin.execute(f"CREATE SCHEMA {identifier(schema)}")
    table = (schema, name)
    admin.execute(
        f"CREATE TABLE {quoted(table)} ({identifier(name)} int PRIMARY KEY, {identifier(name[:50] + ' 2')} text)"
    )
    target = name if name != "x" * 63 else "y" * 63
    for _ in range(2):
        triggers.install(admin, table, to=target, old=True, columns=[name, name[:50] + " 2"], name=name[:40])
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(target)
        admin.execute(f"INSERT INTO {quoted(table)} VALUES (1, 'a')")
        admin.execute(f"UPDATE {quoted(table)} SET {identifier(name)} = 2")
        first, second = pubsub.get_event(PATIENCE), pubsub.get_event(PATIENCE)
        assert first is not None
        assert second is not None
        change = json.loads(second.payload)
        assert json.loads(first.payload)["row"] == {name: 1, name[:50] + " 2": "a"}
        assert (change["table"], change["key"], change["old_key"], change["changed"]) == (
            name,
            {name: 2},
            {name: 1},
            {name: 2},
        )
    (found,) = [one for one in triggers.installed(admin) if one.table == table]
    assert (found.name, found.to, found.failures, found.columns) == (
        name[:40],
        target,
        0,
        tuple(sorted([name, name[:50] + " 2"])),
    )
    triggers.drop(admin, table, name[:40])
    assert [one for one in triggers.installed(admin) if one.table == table] == []
    left = admin.execute("SELECT proname FROM pg_proc WHERE pronamespace = %s::regnamespace", [identifier(schema)])
    assert left.fetchall() == []
    admin.execute(f"DROP SCHEMA {identifier(schema)} CASCADE")


def test_tables_of_the_same_name_do_not_get_in_each_others_way(admin: Admin, channel: str, told: Told) -> None:
    names = [(f"{number} {channel}", "same") for number in range(2)]
    for schema, name in names:
        admin.execute(f"CREATE SCHEMA {identifier(schema)}")
        admin.execute(f"CREATE TABLE {quoted((schema, name))} (id int PRIMARY KEY)")
        triggers.install(admin, (schema, name), to=channel)
    for table in names:
        insert(admin, table, (1,))
    assert [(change["schema"], change["table"]) for change in told()] == names
    for schema, _ in names:
        admin.execute(f"DROP SCHEMA {identifier(schema)} CASCADE")


def test_partitions_are_told_as_the_table_that_they_belong_to(admin: Admin, channel: str, told: Told) -> None:
    name = f"parts {channel}"
    admin.execute(f"CREATE TABLE {identifier(name)} (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)")
    for number in range(2):
        admin.execute(
            f"CREATE TABLE {identifier(f'{number} {channel}')} PARTITION OF {identifier(name)}"
            f" FOR VALUES FROM ({number * 10}) TO ({number * 10 + 10})"
        )
    triggers.install(admin, ("public", name), to=channel)
    assert [one.on for one in triggers.installed(admin) if one.table[1] == name] == [("insert", "update", "delete")]
    admin.execute(f"INSERT INTO {identifier(name)} VALUES (1, 5)")
    admin.execute(f"UPDATE {identifier(name)} SET at = 15")
    changes = told()
    assert {change["table"] for change in changes} == {name}
    assert [(change["op"], change["key"]) for change in changes] == [
        ("insert", {"id": 1, "at": 5}),
        ("delete", {"id": 1, "at": 5}),
        ("insert", {"id": 1, "at": 15}),
    ]


@pytest.mark.parametrize(
    ("kind", "reason"), [("VIEW", "a view, in which nothing is stored"), ("MATERIALIZED VIEW", "a materialized view")]
)
def test_what_cannot_tell_is_refused(admin: Admin, channel: str, kind: str, reason: str) -> None:
    admin.execute(f"CREATE {kind} {identifier(f'v {channel}')} AS SELECT 1 AS id")
    with pytest.raises(psycopg.errors.WrongObjectType, match=reason):
        triggers.install(admin, ("public", f"v {channel}"), to=channel)


def test_tables_without_a_key_and_with_odd_types_are_told(admin: Admin, channel: str, told: Told) -> None:
    name = identifier(f"odd {channel}")
    admin.execute(
        f"CREATE TABLE {name} (j json, p point, r int4range, b bytea, a int[], n numeric, t timestamptz,"
        " i interval, twice int GENERATED ALWAYS AS (2) STORED)"
    )
    triggers.install(admin, ("public", f"odd {channel}"), to=channel, old=True)
    admin.execute(
        f"INSERT INTO {name} VALUES ('{{\"a\": \"\\u0000\"}}', '(1,2)', '[1,5)', '\\x00ff', '{{1,NULL}}',"
        " 'NaN', 'infinity', '1 day')"
    )
    admin.execute(f"UPDATE {name} SET j = '[]'")
    inserted, updated = told()
    assert inserted["reduced"] is updated["reduced"] is None
    assert (inserted["key"], inserted["row"]["n"], inserted["row"]["twice"]) == (None, "NaN", 2)
    assert updated["changed"] == {"j": []}
    assert updated["old"] == inserted["row"]


# -- nothing fails


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


def test_whoever_may_not_append_may_write_all_the_same(
    dsn: str, installed: str, admin: Admin, table: tuple[str, str], channel: str
) -> None:
    role = f"writer of {channel}"
    new_role(admin, role, f"ALL ON TABLE {quoted(table)}")
    triggers.install(admin, table, to=triggers.stream(channel))
    with psycopg.connect(make_conninfo(dsn, user=role), autocommit=True) as writer:
        writer.execute("SET client_min_messages = error")
        insert(writer, table, (1, "a", 5))
        assert payloads_of(admin, channel) == []
        triggers.install(admin, table, to=triggers.stream(channel), definer=True)
        insert(writer, table, (2, "a", 5))
    (payload,) = payloads_of(admin, channel)
    assert json.loads(payload)["key"] == {"id": 2}
    (found,) = [one for one in triggers.installed(admin) if one.table == table]
    assert (found.failures, found.definer) == (1, True)
    admin.execute(f"DROP OWNED BY {identifier(role)}")
    admin.execute(f"DROP ROLE {identifier(role)}")


# -- streams, and statements


def test_a_stream_gets_all_of_it_with_the_key(
    installed: str, admin: Admin, table: tuple[str, str], channel: str
) -> None:
    with Hub(installed) as hub:
        triggers.install(admin, table, to=hub.stream(channel), old=True)
        (found,) = [one for one in triggers.installed(admin) if one.table == table]
        assert found.to == ToStream(channel, "pgpubsub")
        insert(admin, table, (1, "x" * 100_000, 5))
        admin.execute(f"DELETE FROM {quoted(table)}")
        with hub.stream(channel, Change[Parcel]).read() as reader:
            first, second = reader.get(PATIENCE), reader.get(PATIENCE)
            assert isinstance(first, pgpubsub.Entry), first
            assert isinstance(second, pgpubsub.Entry), second
            assert (first.key, second.key) == ("1", "1")
            assert first.payload.row == second.payload.old == Parcel(1, "x" * 100_000, 5)


@pytest.mark.parametrize("by", ["row", "statement"])
def test_a_stream_has_the_same_of_rows_and_statements(
    installed: str, admin: Admin, table: tuple[str, str], channel: str, by: Any
) -> None:
    triggers.install(admin, table, to=triggers.stream(channel), old=True, level=by, when="coalesce(NEW.id, 0) <> 3")
    admin.execute(f"INSERT INTO {quoted(table)} SELECT n, 'open', n FROM generate_series(1, 4) AS n")
    admin.execute(f"UPDATE {quoted(table)} SET state = 'paid' WHERE id > 1")
    admin.execute(f"UPDATE {quoted(table)} SET state = 'paid'")
    admin.execute(f"DELETE FROM {quoted(table)} WHERE id = 4")
    found = [json.loads(payload) for payload in payloads_of(admin, channel)]
    opened = [{"id": number, "state": "open", "weight": number} for number in range(5)]
    paid = [{**row, "state": "paid"} for row in opened]
    expected = [
        *[("insert", {"id": number}, opened[number], None, None, None) for number in (1, 2, 4)],
        *[("update", {"id": number}, paid[number], opened[number], {"state": "paid"}, None) for number in (2, 4)],
        ("update", {"id": 1}, paid[1], opened[1], {"state": "paid"}, None),
        ("delete", {"id": 4}, None, paid[4], None, None),
    ]
    assert sorted(map(repr, map(essence, found))) == sorted(map(repr, expected))


def test_a_statement_tells_how_many_and_as_many_keys_as_there_is_room_for(
    admin: Admin, table: tuple[str, str], channel: str, told: Told
) -> None:
    triggers.install(admin, table, to=channel, level="statement", on=["insert", "update", "delete", "truncate"])
    admin.execute(f"INSERT INTO {quoted(table)} SELECT n, 'open', n FROM generate_series(1, 100000) AS n")
    admin.execute(f"UPDATE {quoted(table)} SET weight = 0 WHERE id < 4")
    admin.execute(f"UPDATE {quoted(table)} SET weight = 0 WHERE id < 6")
    admin.execute(f"UPDATE {quoted(table)} SET id = -id WHERE id < 3")
    admin.execute(f"UPDATE {quoted(table)} SET weight = 0 WHERE id < 4")
    admin.execute(f"DELETE FROM {quoted(table)} WHERE id < 0")
    admin.execute(f"TRUNCATE {quoted(table)}")
    inserted, *others = told()
    assert (inserted["count"], inserted["reduced"]) == (100_000, "keys")
    assert inserted["keys"] == [{"id": number + 1} for number in range(len(inserted["keys"]))]
    assert len(inserted["keys"]) > 500
    found = [(one["op"], one.get("count"), sorted(key["id"] for key in one.get("keys") or ())) for one in others]
    assert found == [
        ("update", 3, [1, 2, 3]),
        ("update", 2, [4, 5]),
        ("update", 2, [-2, -1, 1, 2]),
        ("delete", 2, [-2, -1]),
        ("truncate", None, []),
    ]
    assert [one["reduced"] for one in others] == [None] * 5


# -- installing


@pytest.mark.parametrize("kind", [kind for kind in OWNERS if "async" not in kind.lower()])
def test_any_connection_installs_and_drops(dsn: str, table: tuple[str, str], channel: str, kind: str) -> None:
    with connected(kind, dsn, autocommit=True) as owner:
        triggers.install(owner.conn, table, to=channel)
        assert [one.to for one in triggers.installed(owner.conn) if one.table == table] == [channel]
        triggers.drop(owner.conn, table)
        assert [one for one in triggers.installed(owner.conn) if one.table == table] == []


@pytest.mark.parametrize("connect", [asyncpg.connect, partial(psycopg.AsyncConnection.connect, autocommit=True)])
def test_an_asynchronous_connection_does_too(
    dsn: str, table: tuple[str, str], channel: str, connect: Callable[..., Any]
) -> None:
    async def main() -> None:
        conn = await (connect(**options_of(dsn)) if connect is asyncpg.connect else connect(dsn))
        await triggers.install_async(conn, table, to=channel)
        assert [one.to for one in await triggers.installed_async(conn) if one.table == table] == [channel]
        await triggers.drop_async(conn, table)
        assert [one for one in await triggers.installed_async(conn) if one.table == table] == []
        await conn.close()

    asyncio.run(main())


def test_it_is_replaced_in_one_transaction_and_left_alone_where_it_is_as_asked_for(
    dsn: str, admin: Admin, table: tuple[str, str], channel: str, told: Told
) -> None:
    triggers.install(admin, table, to=channel)
    triggers.install(admin, table, to=channel, name="another", on=["delete"])
    with psycopg.connect(dsn) as holder:
        holder.execute(f"SELECT FROM {quoted(table)}")  # a lock that would keep CREATE TRIGGER waiting
        holder.execute(f"LOCK {quoted(table)} IN ROW EXCLUSIVE MODE")
        admin.execute("SET lock_timeout = '1s'")
        triggers.install(admin, table, to=channel)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            triggers.install(admin, table, to=channel, on=["insert"])
    triggers.install(admin, table, to=channel, on=["insert"], key_only=True)
    insert(admin, table, (1, "a", 1))
    admin.execute(f"UPDATE {quoted(table)} SET weight = 2")
    admin.execute(f"DELETE FROM {quoted(table)}")
    assert [(change["op"], change["row"]) for change in told()] == [("insert", None), ("delete", None)]
    found = {one.name: one for one in triggers.installed(admin) if one.table == table}
    assert found["pgpubsub"].on == ("insert",)
    assert found["another"].on == ("delete",)
    triggers.drop(admin, table)
    triggers.drop(admin, table)
    assert [one.name for one in triggers.installed(admin) if one.table == table] == ["another"]


@pytest.mark.parametrize("setting", ["search_path = planted, pg_catalog", "standard_conforming_strings = off"])
def test_it_is_installed_whatever_is_set(
    admin: Admin, table: tuple[str, str], channel: str, told: Told, setting: str
) -> None:
    admin.execute("CREATE SCHEMA IF NOT EXISTS planted")
    for function, arguments in (("cardinality", "anyarray"), ("format", "text"), ("to_json", "anyelement")):
        admin.execute(
            f"CREATE OR REPLACE FUNCTION planted.{function}({arguments}) RETURNS int LANGUAGE plpgsql AS"
            " 'BEGIN RAISE EXCEPTION ''planted''; END'"
        )
    admin.execute(f"SET {setting}")
    triggers.install(admin, table, to=channel)
    assert admin.execute("SELECT current_setting(%s) || ' '", [setting.split(" = ")[0]]).fetchone() == (
        setting.split(" = ")[1] + " ",
    )
    admin.execute("RESET ALL")
    insert(admin, table, (1, "a", 1))
    assert [change["reduced"] for change in told()] == [None]
    admin.execute("DROP SCHEMA planted CASCADE")


def test_it_may_be_installed_by_several_at_once(dsn: str, admin: Admin, table: tuple[str, str], channel: str) -> None:
    def install() -> None:
        with psycopg.connect(dsn) as connection:
            triggers.install(connection, table, to=channel)

    workers = [Worker(install) for _ in range(6)]
    assert [worker.outcome() for worker in workers] == [None] * 6
    assert len([one for one in triggers.installed(admin) if one.table == table]) == 1


def test_a_comment_that_looks_like_ours_is_nobodys_trouble(admin: Admin, table: tuple[str, str], channel: str) -> None:
    name = identifier(f"f {channel}")
    admin.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    admin.execute(f"COMMENT ON FUNCTION {name}() IS 'pgpubsub trigger: nonsense'")
    other = identifier(f"other {channel}")
    admin.execute(f"CREATE TABLE {other} (id int)")
    admin.execute(f"CREATE TRIGGER foreigner BEFORE INSERT ON {other} FOR EACH ROW EXECUTE FUNCTION {name}()")
    triggers.install(admin, table, to=channel)
    assert [one.to for one in triggers.installed(admin) if one.table == table] == [channel]
    admin.execute(f"DROP FUNCTION {name}() CASCADE")


@pytest.mark.parametrize("to", ["channel", triggers.stream("orders")])
@pytest.mark.parametrize("level", ["row", "statement"])
def test_its_text_has_nothing_that_sqlalchemy_takes_for_a_parameter(to: Any, level: Any) -> None:
    text = triggers.sql("orders", to=to, level=level, columns=["id"])
    assert sqlalchemy.text(text)._bindparams == {}
    assert sqlalchemy.text(triggers.drop_sql("orders"))._bindparams == {}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"to": ""}, pgpubsub.ChannelNameError, "cannot be empty"),
        ({"to": 5}, TypeError, "to is a channel's name"),
        ({"on": []}, ValueError, "on is empty"),
        ({"on": ["upsert"]}, ValueError, "not 'upsert'"),
        ({"columns": "state"}, TypeError, "several names"),
        ({"columns": []}, ValueError, "key_only=True"),
        ({"level": "table"}, ValueError, "level is 'row' or 'statement'"),
        ({"level": "statement", "old": True}, ValueError, "no old rows"),
        ({"key_only": True, "old": True}, ValueError, "choose one"),
        ({"when": ""}, ValueError, "when is empty"),
        ({"name": "x" * 41}, ValueError, "the limit is 40"),
        ({"old": "yes"}, TypeError, "old is True or False"),
        ({"columns": ["nope"]}, psycopg.errors.UndefinedColumn, "has no column nope; it has id, state, weight"),
        ({"when": "NEW.nope"}, psycopg.errors.UndefinedColumn, "nope"),
        ({"when": "NEW.weight"}, psycopg.errors.DatatypeMismatch, "boolean"),
        ({"to": triggers.stream("a", "nowhere")}, psycopg.errors.UndefinedTable, "no streams in schema nowhere"),
    ],
)
def test_what_is_not_possible_is_refused(
    admin: Admin, table: tuple[str, str], channel: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        triggers.install(admin, table, **{"to": channel, **options})
    assert [one for one in triggers.installed(admin) if one.table == table] == []


# -- the helpers of pgpubsub 0.0.5


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
