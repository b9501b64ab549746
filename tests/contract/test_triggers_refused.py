"""Tables on which triggers tell less, or are refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from pgpubsub import triggers
from tests.contract.streams import payloads_of
from tests.contract.triggers import (
    Admin,
    Told,
    admin,
    failures_of,
    insert,
    quoted,
    replace_table,
    table,
    told,
)

__all__ = ["admin", "table", "told"]


def test_of_a_table_without_a_key_statements_tell_of_updates_that_change_something(
    installed: str, admin: Admin, channel: str, told: Told
) -> None:
    table = replace_table(admin, f"keyless {channel}", "a int, b json")
    triggers.install(admin, table, to=channel, level="statement", columns=["a"])
    triggers.install(admin, table, to=triggers.stream(channel), level="statement", name="to the stream")
    admin.execute(f"INSERT INTO {quoted(table)} VALUES (1, '{{}}'), (2, '{{}}'), (2, '{{}}')")
    admin.execute(f"UPDATE {quoted(table)} SET a = a")
    admin.execute(f"UPDATE {quoted(table)} SET b = '[]'")
    admin.execute(f"UPDATE {quoted(table)} SET a = 2")
    admin.execute(f"DELETE FROM {quoted(table)}")
    found = [(one["op"], one["count"], one["keys"], one["reduced"]) for one in told()]
    assert found == [("insert", 3, None, None), ("update", 3, None, None), ("delete", 3, None, None)]
    entries = [json.loads(payload) for payload in payloads_of(admin, channel)]
    assert [one["op"] for one in entries] == ["insert"] * 3 + ["update"] * 6 + ["delete"] * 3
    assert entries[6]["row"] == {"a": 2, "b": []}
    assert failures_of(admin, table) == [0, 0]


def test_a_condition_on_what_was_needs_a_key_or_rows(admin: Admin, channel: str, told: Told) -> None:
    table = replace_table(admin, f"keyless {channel}", "a int")
    when = "TG_OP = 'DELETE' OR NEW.a > OLD.a"
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="looks at OLD, and .* has no primary key"):
        triggers.install(admin, table, to=channel, level="statement", when=when)
    triggers.install(admin, table, to=channel, level="statement", when="NEW.a > 1", on=["update"])
    triggers.install(admin, table, to=channel, level="statement", when="OLD.a > 1", on=["delete"], name="deletes")
    triggers.install(admin, table, to=channel, when=when, on=["update"], name="rows")
    insert(admin, table, (1,))
    admin.execute(f"UPDATE {quoted(table)} SET a = 2")
    admin.execute(f"DELETE FROM {quoted(table)}")
    assert [(one["op"], one.get("count")) for one in told()] == [("update", None), ("update", 1), ("delete", 1)]


# -- what is refused, with a reason


def test_a_table_without_columns_is_refused(admin: Admin, channel: str) -> None:
    table = replace_table(admin, f"empty {channel}", "")
    with pytest.raises(psycopg.errors.InvalidTableDefinition, match="has no columns"):
        triggers.install(admin, table, to=channel)


@pytest.mark.since_postgresql(18)
def test_a_column_that_is_generated_when_it_is_read_is_not_watched(admin: Admin, channel: str) -> None:
    table = replace_table(admin, f"virtual {channel}", "id int PRIMARY KEY, twice int GENERATED ALWAYS AS (2 * id)")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="column twice of .* is generated when it is read"):
        triggers.install(admin, table, to=channel, columns=["twice"])


@pytest.mark.parametrize("first", ["table", "partition"])
def test_a_partition_and_its_table_have_triggers_of_different_names(
    admin: Admin, channel: str, told: Told, first: str
) -> None:
    whole, part = ("public", f"whole {channel}"), ("public", f"part {channel}")
    admin.execute(f"CREATE TABLE {quoted(whole)} (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    admin.execute(f"CREATE TABLE {quoted(part)} PARTITION OF {quoted(whole)} FOR VALUES FROM (0) TO (9)")
    one, other = (whole, part) if first == "table" else (part, whole)
    triggers.install(admin, one, to=channel)
    with pytest.raises(
        psycopg.errors.DuplicateObject, match="other triggers of this name: .*pgpubsub insert.* of"
    ) as e:
        triggers.install(admin, other, to=channel)
    assert "Give another name" in str(e.value.diag.message_hint)
    triggers.install(admin, other, to=channel, name="other")
    triggers.install(admin, other, to=channel, name="other", key_only=True)
    insert(admin, whole, (1,))
    assert sorted(one["table"] for one in told()) == sorted([whole[1], part[1]])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "a trigger tells changes to somebody: give it to=, a channel's name for example"),
        ({"to": "x", "column": ["a"]}, "a trigger has no option 'column': it takes to, on, columns, key_only, old,"),
    ],
)
def test_what_is_not_given_or_unknown_is_named(options: Any, match: str) -> None:
    with pytest.raises(TypeError, match=match):
        triggers.sql("price", **options)
