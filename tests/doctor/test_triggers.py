"""The doctor's check for triggers that have failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psycopg.conninfo import make_conninfo

from pgpubsub import triggers
from pgpubsub.doctor import Examined, Finding, Severity
from tests.contract.streams import identifier, new_role
from tests.contract.triggers import Admin, admin, insert, quoted, table
from tests.doctor.schemas import Schema, schema

__all__ = ["admin", "schema", "table"]


FORGED = (
    '{"to": 5}',
    "nothing",
    "[1]",
    '{"name": "x", "to": {}, "on": []}',
    '{"name": "a\\u0000b", "to": "x", "on": ["insert"]}',
    '{"name": "a\\ud800b", "to": "x", "on": ["insert"]}',
)
"""What stands in comments of functions that look like those of our triggers."""


def findings_of(examined: Examined, table: tuple[str, str]) -> list[Finding]:
    return [one for one in examined.findings if one.evidence["table"] == ".".join(table)]


def fail(admin: Admin, table: tuple[str, str], times: int, **options: Any) -> None:
    """Have a trigger fail so often."""
    triggers.install(admin, table, when="10 / NEW.weight > 1", **options)
    insert(admin, table, *[(number, "a", 0) for number in range(times)])


def test_a_trigger_that_has_failed_is_told_of_until_its_count_is_set_back(
    dsn: str, admin: Admin, table: tuple[str, str], examined: Callable[..., Examined]
) -> None:
    fail(admin, table, 3, to="a channel")
    (finding,) = findings_of(examined(dsn), table)
    assert finding.severity is Severity.WARNING
    assert finding.cause.startswith(f"trigger 'pgpubsub' of table {'.'.join(table)} has failed 3 times to tell channel")
    assert "look for 'could not be told in full' in the server's log" in finding.cure
    assert finding.evidence["failures"] == 3
    _, colon, statement = finding.cure.partition("as the table's owner: ")
    assert colon
    admin.execute(statement)
    assert findings_of(examined(dsn), table) == []
    insert(admin, table, (17, "a", 0))
    (finding,) = findings_of(examined(dsn), table)
    assert "has failed once to tell" in finding.cause


def test_each_trigger_of_a_table_has_a_finding_of_its_own(
    dsn: str, admin: Admin, table: tuple[str, str], examined: Callable[..., Examined], schema: Schema
) -> None:
    triggers.install(admin, table, to="fine", name="fine")
    triggers.install(admin, table, to="b", name="other", when="10 / NEW.weight > 1")
    fail(admin, table, 1, to=triggers.stream("orders", schema=schema.name))
    found = findings_of(examined(dsn), table)
    assert {one.evidence["trigger"]: one.evidence["to"] for one in found} == {
        "pgpubsub": "stream 'orders'",
        "other": "channel 'b'",
    }


def test_triggers_that_have_not_failed_and_comments_of_others_are_fine(
    dsn: str, admin: Admin, table: tuple[str, str], examined: Callable[..., Examined]
) -> None:
    triggers.install(admin, table, to="a channel")
    insert(admin, table, (1, "a", 1))
    for number, comment in enumerate(FORGED):
        name = f'"evil {number} of {table[1]}"'
        admin.execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
            f"COMMENT ON FUNCTION {name}() IS 'pgpubsub trigger: {comment}';"
            f'CREATE SEQUENCE "evil {number} of {table[1]} failures";'
            f"""SELECT nextval('"evil {number} of {table[1]} failures"');"""
            f'CREATE TRIGGER "evil {number}" AFTER INSERT ON {quoted(table)} EXECUTE FUNCTION {name}()'
        )
    found = examined(dsn)
    assert findings_of(found, table) == []
    assert found.unseen == ()
    fail(admin, table, 1, to="a channel")
    assert len(findings_of(examined(dsn), table)) == 1  # which the others do not hide


def test_a_role_without_rights_sees_it_too(
    dsn: str, admin: Admin, table: tuple[str, str], examined: Callable[..., Examined], channel: str
) -> None:
    fail(admin, table, 1, to=channel)
    role = f"nobody of {channel}"
    new_role(admin, role)
    assert len(findings_of(examined(make_conninfo(dsn, user=role)), table)) == 1
    admin.execute(f"DROP ROLE {identifier(role)}")


def test_a_database_without_triggers_is_fine(dsn: str, admin: Admin, examined: Callable[..., Examined]) -> None:
    admin.execute('CREATE DATABASE "without triggers"')
    found = examined(make_conninfo(dsn, dbname="without triggers"))
    assert found.fine == ("no triggers are installed",)
    admin.execute('DROP DATABASE "without triggers" WITH (FORCE)')
