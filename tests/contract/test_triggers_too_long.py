"""What triggers tell of rows and keys that are too long for a notification."""

from __future__ import annotations

import json

import pytest

import pgpubsub
import pgpubsub.streams
from pgpubsub import triggers
from tests.contract.faces import PATIENCE
from tests.contract.streams import identifier
from tests.contract.triggers import Admin, Told, admin, essence, insert, quoted, replace_table, table, told

__all__ = ["admin", "table", "told"]


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


def test_a_row_too_long_without_a_key_is_told_as_nothing_but_that(admin: Admin, channel: str, told: Told) -> None:
    table = replace_table(admin, f"keyless {channel}", "a text, b int")
    triggers.install(admin, table, to=channel)
    insert(admin, table, ("x" * 8000, 1))
    admin.execute(f"UPDATE {quoted(table)} SET b = 2")
    admin.execute(f"UPDATE {quoted(table)} SET a = repeat('y', 8000)")
    changed = ("update", None, None, None, {"b": 2}, "changed")
    assert list(map(essence, told())) == [
        ("insert", None, None, None, None, "nothing"),
        changed,
        ("update", None, None, None, None, "nothing"),
    ]


def test_the_old_key_is_left_out_before_the_key(admin: Admin, channel: str, told: Told) -> None:
    table = replace_table(admin, f"long keys {channel}", "id text PRIMARY KEY")
    triggers.install(admin, table, to=channel, on=["update"])
    insert(admin, table, ("x" * 3000,))
    for key in ("y" * 4500, "z" * 4500):
        admin.execute(f"UPDATE {quoted(table)} SET id = %s", [key])
    first, second = told()
    assert (first["reduced"], first["key"], first["old_key"]) == ("key", {"id": "y" * 4500}, {"id": "x" * 3000})
    assert (second["reduced"], second["key"], "old_key" in second) == ("key", {"id": "z" * 4500}, False)


def test_a_change_beside_a_value_that_is_far_too_long_is_told(
    admin: Admin, table: tuple[str, str], channel: str, told: Told
) -> None:
    triggers.install(admin, table, to=channel, old=True)
    digits = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 40000) AS n)"  # 1.2 MB, hard to compress
    admin.execute(f"INSERT INTO {quoted(table)} VALUES (1, {digits}, 1)")
    admin.execute(f"UPDATE {quoted(table)} SET weight = 2")
    admin.execute(f"UPDATE {quoted(table)} SET state = 'new' || state")
    admin.execute(f"UPDATE {quoted(table)} SET state = 'short'")
    short = {"id": 1, "state": "short", "weight": 2}
    assert list(map(essence, told())) == [
        ("insert", {"id": 1}, None, None, None, "key"),
        ("update", {"id": 1}, None, None, {"weight": 2}, "changed"),
        ("update", {"id": 1}, None, None, None, "key"),
        ("update", {"id": 1}, short, None, {"state": "short"}, "row"),
    ]


@pytest.mark.parametrize("kind", ["{} of a domain", "jsonb", "text[]"])
def test_a_value_whose_json_would_be_too_long_for_postgresql_is_told_by_its_key(
    admin: Admin, channel: str, told: Told, kind: str
) -> None:
    first, second = identifier(f"first {channel}"), identifier(f"second {channel}")
    admin.execute(f"CREATE DOMAIN {first} AS text")
    admin.execute(f"CREATE DOMAIN {second} AS {first}")
    table = replace_table(
        admin, f"huge {channel}", f"id int PRIMARY KEY, value {kind.replace('{} of a domain', second)}"
    )
    triggers.install(admin, table, to=channel, on=["insert"])
    value = "repeat(chr(1), 180000000)"  # each of which is \u0001
    whole = {"jsonb": f"to_jsonb({value})", "text[]": f"ARRAY[{value}]"}.get(kind, value)
    admin.execute(f"INSERT INTO {quoted(table)} VALUES (1, {whole})")
    assert [(one["key"], one["reduced"]) for one in told()] == [({"id": 1}, "key")]
    admin.execute(f"DROP TABLE {quoted(table)}")
    admin.execute(f"DROP DOMAIN {second}, {first}")


@pytest.mark.parametrize(
    ("kind", "value"),
    [("jsonb", "('[1' || repeat(', 1', 2500) || ']')::jsonb"), ("numeric[]", "array_fill(1, '{3800}')")],
)
def test_a_value_that_takes_more_room_stored_than_as_json_is_told_whole(
    admin: Admin, channel: str, told: Told, kind: str, value: str
) -> None:
    table = replace_table(admin, f"roomy {channel}", f"id int PRIMARY KEY, value {kind}")
    admin.execute(f"ALTER TABLE {quoted(table)} ALTER value SET STORAGE EXTERNAL")
    triggers.install(admin, table, to=channel, on=["insert"])
    admin.execute(f"INSERT INTO {quoted(table)} VALUES (1, {value})")
    (change,) = told()
    assert (change["reduced"], set(change["row"]["value"])) == (None, {1})
    size = admin.execute(f"SELECT pg_column_size(value) > 8100 FROM {quoted(table)}").fetchone()
    assert size == (True,)


@pytest.mark.parametrize("letter", ["x", "é"])
def test_a_statements_keys_fill_what_there_is_to_the_byte(admin: Admin, channel: str, dsn: str, letter: str) -> None:
    table = replace_table(admin, f"keys {channel}", "id text PRIMARY KEY")
    triggers.install(admin, table, to=channel, level="statement", on=["insert"])
    reductions = set()
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(channel)
        for size in range(7600 // len(letter.encode()), 7800 // len(letter.encode())):
            keys = [str(size) + letter * (size // 2), str(size) + letter * (size - size // 2) + "."]
            admin.execute(f"INSERT INTO {quoted(table)} SELECT unnest(%s::text[])", [keys])
            event = pubsub.get_event(PATIENCE)
            assert event is not None
            change = json.loads(event.payload)
            left = [key for key in keys if {"id": key} not in change["keys"]]
            assert len(event.payload.encode()) <= 7999
            assert (change["count"], change["reduced"]) == (2, "keys" if left else None)
            for key in left:
                assert len(event.payload.encode()) + len(',{"id":""}') + len(key.encode()) > 7999
            reductions.add(change["reduced"])
    assert reductions == {None, "keys"}


def test_a_key_too_long_does_not_hide_those_behind_it(admin: Admin, channel: str, told: Told) -> None:
    table = replace_table(admin, f"keys {channel}", "id text PRIMARY KEY")
    triggers.install(admin, table, to=channel, level="statement")
    admin.execute(f"INSERT INTO {quoted(table)} VALUES (repeat('x', 8000)), ('a'), (repeat('y', 7900)), ('b')")
    (change,) = told()
    assert (change["count"], change["keys"], change["reduced"]) == (4, [{"id": "a"}, {"id": "b"}], "keys")
