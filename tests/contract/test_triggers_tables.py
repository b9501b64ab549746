"""Triggers on any table, whatever it is called, holds and belongs to."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

import pgpubsub
import pgpubsub.streams
from pgpubsub import triggers
from tests.contract.faces import PATIENCE
from tests.contract.streams import entries_of, identifier, install, payloads_of
from tests.contract.triggers import (
    Admin,
    Told,
    admin,
    essence,
    insert,
    quoted,
    replace_table,
    table,
    told,
)

__all__ = ["admin", "table", "told"]

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
    "tail",
    "tg_op",
]
ODD_SCHEMA = 'the "streams" of 100% {wanted} [[key]] $pgpubsub$'


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


@pytest.fixture(scope="module")
def oddly_installed(dsn: str) -> None:
    install(dsn, ODD_SCHEMA)


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("level", ["row", "statement"])
@pytest.mark.parametrize("columns", ["all", "some"])
@pytest.mark.usefixtures("oddly_installed")
def test_any_names_will_do_wherever_they_stand(
    admin: Admin, channel: str, told: Told, name: str, level: Any, columns: str
) -> None:
    names = list(dict.fromkeys([name, "new", "old", "tail", "state"]))
    schema = f"s {channel} {name[:20]}"
    admin.execute(f"CREATE SCHEMA {identifier(schema)}")
    table = (schema, name)
    admin.execute(f"CREATE TABLE {quoted(table)} ({', '.join(f'{identifier(one)} int' for one in names)})")
    admin.execute(f"ALTER TABLE {quoted(table)} ADD PRIMARY KEY ({identifier(name)})")
    to = triggers.stream(f"{name} of {channel}", ODD_SCHEMA)
    options: dict[str, Any] = {
        "level": level,
        "columns": names if columns == "some" else None,
        "when": f"1 / (coalesce(NEW.{identifier(name)}, OLD.{identifier(name)}) - 13) < 1",
    }
    triggers.install(admin, table, to=to, name=f"stream {name}"[:40], **options)
    triggers.install(admin, table, to=channel, name=f"channel {name}"[:40], **options)
    warnings: list[str | None] = []
    admin.execute("SET client_min_messages = warning")
    admin.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
    insert(admin, table, [1] * len(names), [13] * len(names))
    admin.execute(f"UPDATE {quoted(table)} SET state = 2 WHERE {identifier(name)} = 1")
    admin.execute(f"DELETE FROM {quoted(table)} WHERE {identifier(name)} = 1")
    first = dict.fromkeys(names, 1)
    expected = [
        ("insert", {name: 1}, first, None, None, None),
        ("insert", None, None, None, None, "nothing"),
        ("update", {name: 1}, {**first, "state": 2}, None, {"state": 2}, None),
        ("delete", {name: 1}, None, None, None, None),
    ]
    assert [essence(json.loads(payload)) for payload in payloads_of(admin, to.name, ODD_SCHEMA)] == expected
    if level == "row":
        assert list(map(essence, told())) == expected
    else:
        found = [(one["op"], one["table"], one.get("keys"), one["reduced"]) for one in told()]
        assert found == [(op, name, None if reduced else [{name: 1}], reduced) for op, *_, reduced in expected]
    assert len(warnings) == 2
    for warning in warnings:
        assert warning is not None
        assert identifier(name).strip('"') in warning
        assert "division by zero" in warning
    assert {one.failures for one in triggers.installed(admin) if one.table == table} == {1}
    admin.execute(f"DROP SCHEMA {identifier(schema)} CASCADE")


@pytest.mark.parametrize("level", ["row", "statement"])
def test_any_text_may_stand_in_a_condition(
    admin: Admin, table: tuple[str, str], channel: str, told: Told, level: Any
) -> None:
    text = '[[key]] ]] [[ {wanted} {tag} $pgpubsub$ $pgpubsub_$ $do$ $$ :null %s % \\ " ; --'
    triggers.install(admin, table, to=channel, level=level, when=f"NEW.state = '{text}' -- '{text}")
    (found,) = [one for one in triggers.installed(admin) if one.table == table]
    assert found.when == f"NEW.state = '{text}' -- '{text}"
    insert(admin, table, (1, text, 1), (2, "other", 1))
    assert [one["key"] or one["keys"] for one in told()] in ([{"id": 1}], [[{"id": 1}]])


def test_tables_of_the_same_name_do_not_get_in_each_others_way(admin: Admin, channel: str, told: Told) -> None:
    names = [(f"{number} {channel}", "same") for number in range(2)]
    for schema, name in names:
        admin.execute(f"CREATE SCHEMA {identifier(schema)}")
        admin.execute(f"CREATE TABLE {quoted((schema, name))} (id int PRIMARY KEY)")
        triggers.install(admin, (schema, name), to=channel)
    for one in names:
        insert(admin, one, (1,))
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


@pytest.mark.parametrize("level", ["row", "statement"])
def test_a_table_that_was_renamed_is_told_of_by_its_old_name_until_it_is_installed_again(
    admin: Admin, table: tuple[str, str], channel: str, told: Told, level: Any
) -> None:
    schema, new = f"elsewhere {channel}", f"new {channel}"
    admin.execute(f"CREATE SCHEMA {identifier(schema)}")
    triggers.install(admin, table, to=channel, level=level)
    admin.execute(f"ALTER TABLE {quoted(table)} RENAME TO {identifier(new)}")
    replace_table(admin, table[1], "other text, columns text")  # whose rows are not of its type
    admin.execute(f"ALTER TABLE {identifier(new)} SET SCHEMA {identifier(schema)}")
    insert(admin, (schema, new), (1, "a", 5))
    triggers.install(admin, (schema, new), to=channel, level=level)
    insert(admin, (schema, new), (2, "a", 5))
    found = [(one["schema"], one["table"], one["key"] or one["keys"][0], one["reduced"]) for one in told()]
    assert found == [(*table, {"id": 1}, None), (schema, new, {"id": 2}, None)]
    assert [one.table for one in triggers.installed(admin) if one.to == channel] == [(schema, new)]
    admin.execute(f"DROP SCHEMA {identifier(schema)} CASCADE")


SETTINGS = [
    "datestyle = 'German, DMY'",
    "intervalstyle = 'iso_8601'",
    "extra_float_digits = -3",
    "bytea_output = 'escape'",
    "timezone = 'Asia/Kolkata'",
]


@pytest.mark.parametrize("level", ["row", "statement"])
@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("date", "2026-11-22"),
        ("date[]", "{2026-11-22}"),
        ("time", "10:11:12.5"),
        ("timestamp", "2026-11-22 10:11:12.5"),
        ("timestamptz", "2026-11-22 10:11:12.5+00"),
        ("timestamptz[]", '{"2026-11-22 10:11:12.5+00"}'),
        ("tstzrange", "[2026-11-22 10:11:12+00,2026-11-23 10:11:12+00)"),
        ("interval", "1 day 02:03:04"),
        ("float8", "0.1234567890123456"),
        ("bytea", "\\x00ff"),
        ("numeric", "1.50"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_keys_and_values_are_the_same_whatever_the_writer_has_set(
    admin: Admin, channel: str, level: Any, type_name: str, value: str
) -> None:
    table = replace_table(admin, f"set {channel}", f"k {type_name} PRIMARY KEY, v {type_name}")
    triggers.install(admin, table, to=triggers.stream(channel), level=level)
    for settings in ([], SETTINGS):
        for setting in settings:
            admin.execute(f"SET {setting}")
        admin.execute(f"INSERT INTO {quoted(table)} VALUES ('{value}', '{value}')")
        admin.execute(f"DELETE FROM {quoted(table)}")
    admin.execute("RESET ALL")
    first, _, second, _ = entries_of(admin, channel)
    assert first["key"] == second["key"]
    assert essence(json.loads(first["payload"])) == essence(json.loads(second["payload"]))
    admin.execute(f"DROP TABLE {quoted(table)}")


def test_an_instant_in_a_row_has_the_writers_offset(admin: Admin, channel: str, told: Told) -> None:
    table = replace_table(admin, f"instants {channel}", "id int PRIMARY KEY, t timestamptz")
    triggers.install(admin, table, to=channel)
    admin.execute("SET timezone = 'Asia/Kolkata'")
    insert(admin, table, (1, "2026-11-22 10:11:12.5+00"))
    (change,) = told()
    assert change["row"]["t"] == "2026-11-22T15:41:12.5+05:30"
    assert change["at"].endswith("+05:30")


def test_a_column_added_later_is_in_the_row_and_not_in_what_has_changed(
    admin: Admin, table: tuple[str, str], channel: str, told: Told
) -> None:
    triggers.install(admin, table, to=channel, on=["update"])
    insert(admin, table, (1, "a", 5))
    admin.execute(f"ALTER TABLE {quoted(table)} ADD note text")
    for note in ("'short'", "repeat('x', 8000)"):
        admin.execute(f"UPDATE {quoted(table)} SET note = {note}")
    assert [(one["changed"], one["reduced"]) for one in told()] == [({}, None), (None, "key")]
    triggers.install(admin, table, to=channel, on=["update"])
    admin.execute(f"UPDATE {quoted(table)} SET note = 'new'")
    assert [one["changed"] for one in told()] == [{"note": "new"}]
