"""The doctor's check of retention: what groups lose, and what nobody removes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

import pgpubsub
import pgpubsub.streams
from pgpubsub import doctor
from pgpubsub.doctor import Examined, Finding, Severity
from tests.contract.streams import identifier, new_role
from tests.doctor.schemas import Schema, schema
from tests.system.standby import Standby

__all__ = ["schema"]

FINE = ("retention removes what is due, and nothing that a group has not handled",)


@pytest.fixture
def orders(dsn: str, schema: Schema) -> Iterator[pgpubsub.Stream[Any]]:
    """A stream with ten entries, of which group "billing" has handled two. No hub of ours trims it."""
    with pgpubsub.Hub(dsn) as hub:
        orders = hub.stream("orders", schema=schema.name)
        orders.append_many([str(number) for number in range(10)])
        with orders.consume("billing") as consumer:
            for _ in range(2):
                consumer.get(10).acknowledge()
        yield orders


@pytest.fixture
def of_schema(dsn: str, schema: Schema, examined: Callable[..., Examined]) -> Callable[[], Examined]:
    """What comes of the check of this test's streams."""
    return lambda: examined(dsn, schema=schema.name)


def the_finding(found: Examined) -> Finding:
    (finding,) = found.findings
    assert found.fine == found.unseen == ()
    return finding


def handle_all(orders: pgpubsub.Stream[Any]) -> None:
    orders.process("billing", lambda entry: None, follow=False)


def keep(schema: Schema, **settings: float | bool | None) -> None:
    pgpubsub.streams.create(schema.conn, "orders", schema=schema.name, **settings)  # type: ignore[arg-type]


def test_a_group_whose_oldest_entry_comes_to_max_age_is_named(
    schema: Schema, orders: pgpubsub.Stream[Any], of_schema: Callable[[], Examined]
) -> None:
    keep(schema, max_age=3600)
    schema.age("47 minutes")
    assert of_schema().fine == FINE
    schema.age("50 minutes")
    finding = the_finding(of_schema())
    assert finding.severity is Severity.WARNING
    assert "retention is about to remove what group 'billing' of stream 'orders' has not handled" in finding.cause
    assert "its oldest entry has come to 83 % of max_age (60 min)" in finding.cause
    assert "pgpubsub.streams.create(conn, 'orders', keep_unconsumed=True)" in finding.cure
    handle_all(orders)
    assert of_schema().fine == FINE


def test_a_group_of_which_many_entries_are_newer_is_named(
    schema: Schema, orders: pgpubsub.Stream[Any], of_schema: Callable[[], Examined]
) -> None:
    keep(schema, max_entries=20)
    assert of_schema().fine == FINE
    orders.append_many(["more"] * 10)
    finding = the_finding(of_schema())
    assert finding.severity is Severity.WARNING
    assert "% of max_entries (20)" in finding.cause
    assert finding.evidence["newer entries"] >= 16
    handle_all(orders)
    assert of_schema().fine == FINE


def test_of_many_entries_those_that_retention_has_counted_say_how_many_are_newer(
    schema: Schema, orders: pgpubsub.Stream[Any], of_schema: Callable[[], Examined]
) -> None:
    schema.do("INSERT INTO {}.entry (stream, payload) SELECT {}.stream_id('orders'), '' FROM generate_series(1, 15000)")
    keep(schema, max_entries=16_000)
    assert of_schema().fine == FINE
    while pgpubsub.streams.trim(schema.conn, "orders", schema=schema.name):
        pass
    finding = the_finding(of_schema())
    assert "its oldest entry has come to 94 % of max_entries (16000)" in finding.cause
    orders.drop_group("billing")
    assert of_schema().fine == FINE


def test_with_keep_unconsumed_nothing_is_about_to_be_lost(
    schema: Schema, orders: pgpubsub.Stream[Any], of_schema: Callable[[], Examined]
) -> None:
    keep(schema, max_age=3600, max_entries=10, keep_unconsumed=True)
    schema.age("59 minutes")
    assert of_schema().fine == FINE


def test_a_group_that_retention_has_passed_is_named_until_it_goes_on(
    schema: Schema, orders: pgpubsub.Stream[Any], of_schema: Callable[[], Examined]
) -> None:
    orders.process("shipping", lambda entry: None, follow=False)
    schema.new_group("orders", "of the future")
    keep(schema, max_age=3600)
    schema.age("2 hours")
    assert pgpubsub.streams.trim(schema.conn, "orders", schema=schema.name) == 10
    finding = the_finding(of_schema())
    assert finding.severity is Severity.WARNING
    assert "has probably removed entries of stream 'orders' that group 'billing' had not handled, in" in finding.cause
    assert "stream.drop_group('billing')" in finding.cure
    orders.append("more")
    schema.age("2 hours")
    assert pgpubsub.streams.trim(schema.conn, "orders", schema=schema.name) == 1
    finding = next(one for one in of_schema().findings if one.evidence["group"] == "billing")
    assert finding.severity is Severity.CRITICAL
    assert "retention has removed entries of stream 'orders' that group 'billing' had not handled:" in finding.cause
    assert finding.evidence["removed in all"] == 11
    orders.append("new")
    for group in ("billing", "shipping"):
        orders.process(group, lambda entry: None, follow=False)
    assert of_schema().fine == FINE


def test_what_nobody_removes_is_worth_knowing(
    schema: Schema, orders: pgpubsub.Stream[Any], of_schema: Callable[[], Examined]
) -> None:
    handle_all(orders)
    keep(schema, max_age=60)
    schema.age("9 minutes")
    assert of_schema().fine == FINE
    schema.age("12 minutes")
    finding = the_finding(of_schema())
    assert finding.severity is Severity.NOTICE
    assert "a stream has entries that are older than max_age and that nobody removes" in finding.cause
    assert finding.cause.endswith("no hub with the right to has ever looked")
    assert "`pgpubsub stream trim` or pgpubsub.streams.trim(conn)" in finding.cure
    assert list(finding.evidence["streams"]) == ["orders"]
    schema.do("INSERT INTO {}.trimming (at) VALUES (clock_timestamp() - interval '20 minutes')")
    assert the_finding(of_schema()).cause.endswith("has looked for 20 min")
    schema.do("UPDATE {}.trimming SET at = clock_timestamp()")
    assert of_schema().fine == FINE  # somebody is at it
    schema.do("DELETE FROM {}.trimming")
    pgpubsub.streams.trim(schema.conn, schema=schema.name)
    assert of_schema().fine == FINE


def test_a_thousand_groups_that_are_behind_are_seen(schema: Schema, dsn: str) -> None:
    schema.do(
        "INSERT INTO {}.consumer_group (id, stream, name) SELECT {}.group_id(id, 'group ' || n), id, 'group ' || n"
        " FROM (SELECT n, {}.create_stream('stream ' || n) AS id FROM generate_series(1, 1000) AS n) AS one"
    )
    schema.do(
        "INSERT INTO {}.slot (consumer_group, slot, below, open)"
        " SELECT id, n, '0', '{}' FROM {}.consumer_group, generate_series(0, 31) AS n"
    )
    schema.do("INSERT INTO {}.entry (stream, payload) SELECT id, '' FROM {}.stream, generate_series(1, 3)")
    pgpubsub.streams.create(schema.conn, "stream 500", schema=schema.name, max_age=7300)
    schema.age("2 hours")
    report = doctor.examine(dsn, schema=schema.name, within=30)
    assert report["groups"].unseen == report["retention"].unseen == ()
    assert report["groups"].findings[-1].cause == "980 more groups are behind"
    (finding,) = report["retention"].findings
    assert finding.evidence["group"] == "group 500"


def test_streams_without_a_limit_and_databases_without_streams_are_fine(
    dsn: str, schema: Schema, orders: pgpubsub.Stream[Any], examined: Callable[..., Examined]
) -> None:
    schema.age("2 years")
    assert examined(dsn, schema=schema.name).fine == ("no stream has max_age or max_entries: all entries are kept",)
    assert examined(dsn, schema="nothing here").fine == ("no streams are installed in schema 'nothing here'",)


def test_on_a_standby_it_says_what_only_the_primary_knows(standby: Standby, examined: Callable[..., Examined]) -> None:
    found = examined(standby.dsn())
    assert found.unseen == ("groups: only the primary knows what they have not handled",)
    assert found.fine == FINE


def test_a_role_without_rights_is_told_which_it_needs(
    dsn: str, schema: Schema, examined: Callable[..., Examined], channel: str
) -> None:
    role = f"nobody of {channel}"
    new_role(schema.conn, role)
    (unseen,) = examined(make_conninfo(dsn, user=role), schema=schema.name).unseen
    assert unseen.startswith(
        f"role {role!r} may not read the streams in schema {schema.name!r} (no USAGE on the schema"
    )
    schema.do(unseen.partition("): ")[2])
    assert len(examined(make_conninfo(dsn, user=role), schema=schema.name).fine) == 1
    schema.conn.execute(f"DROP OWNED BY {identifier(role)}")
    schema.conn.execute(f"DROP ROLE {identifier(role)}")
