"""The doctor's check for entries that were set aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

import pgpubsub
from pgpubsub.doctor import Examined, Severity
from pgpubsub.doctor.checks import dead_letters
from tests.contract.streams import identifier, new_role
from tests.doctor.schemas import Schema, schema

__all__ = ["schema"]


@pytest.fixture
def orders(dsn: str, schema: Schema) -> Iterator[pgpubsub.Stream[Any]]:
    """A stream of which the group "the billing" has set two entries of three aside, and "shipping" none."""
    with pgpubsub.Hub(dsn) as hub:
        orders = hub.stream("new orders", schema=schema.name)
        orders.append_many(["17", "18", "19"])
        orders.process("the billing", fail_unless_19, attempts=1, follow=False)
        orders.process("shipping", lambda entry: None, follow=False)
        yield orders


def fail_unless_19(entry: pgpubsub.Entry[str]) -> None:
    if entry.payload != "19":
        raise ValueError(f"{entry.payload} has no customer")


@pytest.fixture
def of_schema(dsn: str, schema: Schema, examined: Callable[..., Examined]) -> Callable[[], Examined]:
    """What comes of the check of this test's streams."""
    return lambda: examined(dsn, schema=schema.name)


def test_what_was_set_aside_is_counted_with_the_last_error(
    orders: pgpubsub.Stream[Any], schema: Schema, of_schema: Callable[[], Examined]
) -> None:
    schema.do("UPDATE {}.parked SET dead_at = dead_at - interval '3 hours'")
    schema.do("UPDATE {}.parked SET dead_at = dead_at - interval '3 hours' WHERE payload = '17'")
    found = of_schema()
    (finding,) = found.findings
    assert found.fine == found.unseen == ()
    assert finding.severity is Severity.WARNING
    assert "2 entries were set aside by group 'the billing' of stream 'new orders'" in finding.cause
    assert "the first 6 h ago; the last error: ValueError: 18 has no customer" in finding.cause
    for command in ("dead", "redrive", "discard"):
        assert f"`pgpubsub stream {command} 'new orders' 'the billing'`" in finding.cure
    assert finding.evidence["count"] == 2
    orders.discard("the billing", [finding.evidence["first id"]])
    assert "1 entry was set aside" in of_schema().findings[0].cause
    orders.discard("the billing")
    assert of_schema().fine == ("no entry was set aside by a group",)


def test_more_than_can_be_counted_are_at_least_so_many(
    orders: pgpubsub.Stream[Any], of_schema: Callable[[], Examined], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "MANY", 2)
    assert of_schema().findings[0].cause.startswith("at least 2 entries were set aside")


def test_entries_that_are_to_come_again_are_no_finding(
    dsn: str, schema: Schema, of_schema: Callable[[], Examined]
) -> None:
    with pgpubsub.Hub(dsn) as hub:
        orders = hub.stream("orders", schema=schema.name)
        orders.append("17")
        with orders.consume("billing", backoff=3600) as consumer, consumer.get(10):
            raise ValueError("17 has no customer")
    assert schema.do("SELECT attempts FROM {}.parked") == [(1,)]
    assert of_schema().fine == ("no entry was set aside by a group",)


def test_a_database_without_streams_is_fine(dsn: str, examined: Callable[..., Examined]) -> None:
    assert examined(dsn, schema="nothing here").fine == ("no streams are installed in schema 'nothing here'",)


def test_a_role_without_rights_is_told_which_it_needs(
    dsn: str, schema: Schema, examined: Callable[..., Examined], channel: str
) -> None:
    role = f"nobody of {channel}"
    new_role(schema.conn, role)
    (unseen,) = examined(make_conninfo(dsn, user=role), schema=schema.name).unseen
    assert unseen.startswith(f"role {role!r} may not read the streams in schema {schema.name!r} (no USAGE on")
    schema.do(unseen.partition("): ")[2])
    assert len(examined(make_conninfo(dsn, user=role), schema=schema.name).fine) == 1
    schema.conn.execute(f"DROP OWNED BY {identifier(role)}")
    schema.conn.execute(f"DROP ROLE {identifier(role)}")
