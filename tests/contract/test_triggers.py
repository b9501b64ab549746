"""Table changes as messages: what they say, in a channel and in a stream."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

import pgpubsub
import pgpubsub.streams
from pgpubsub import Change, Channel, Hub, triggers
from pgpubsub.triggers import ToStream
from tests.contract.faces import PATIENCE
from tests.contract.streams import identifier, payloads_of
from tests.contract.triggers import Admin, Told, admin, essence, insert, quoted, replace_table, table, told

__all__ = ["admin", "table", "told"]


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


@pytest.mark.parametrize("level", ["row", "statement"])
def test_a_truncate_is_told_whatever_the_condition(
    admin: Admin, table: tuple[str, str], channel: str, told: Told, level: Any
) -> None:
    triggers.install(admin, table, to=channel, level=level, on=["truncate", "update"], when="NEW.id > 5")
    admin.execute(f"TRUNCATE {quoted(table)}")
    assert list(map(essence, told())) == [("truncate", None, None, None, None, None)]


def test_equal_rows_are_told_one_by_one(admin: Admin, channel: str, told: Told) -> None:
    table = replace_table(admin, f"equal {channel}", "a int")
    triggers.install(admin, table, to=channel)
    admin.execute(f"INSERT INTO {quoted(table)} VALUES (1), (1), (1)")
    assert list(map(essence, told())) == [("insert", None, {"a": 1}, None, None, None)] * 3


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


def test_what_another_trigger_does_is_told_after_what_it_follows_from_with_a_name_that_sorts_first(
    admin: Admin, table: tuple[str, str], channel: str, told: Told
) -> None:
    function = identifier(f"pay {channel}")
    admin.execute(
        f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" UPDATE {quoted(table)} SET state = 'paid' WHERE id = NEW.id; RETURN NULL; END $$"
    )
    admin.execute(f"CREATE TRIGGER audit AFTER INSERT ON {quoted(table)} FOR EACH ROW EXECUTE FUNCTION {function}()")
    triggers.install(admin, table, to=channel)
    insert(admin, table, (1, "open", 1))
    assert [one["op"] for one in told()] == ["update", "insert"]
    triggers.drop(admin, table)
    triggers.install(admin, table, to=channel, name="!first")
    insert(admin, table, (2, "open", 1))
    assert [(one["op"], one["row"]["state"]) for one in told()] == [("insert", "open"), ("update", "paid")]
