"""The doctor's check of groups: whether they get on, and who holds them up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgpubsub
import pgpubsub.streams
from pgpubsub.doctor import Examined, Finding, Severity, streams
from pgpubsub.doctor.checks import groups
from pgpubsub.testing import TemporaryServer
from tests.contract.streams import identifier, new_role
from tests.contract.test_handler import eventually
from tests.doctor.schemas import Schema, schema
from tests.system.standby import Standby

__all__ = ["schema"]

PATIENCE = 10.0

FINE = ("no group has had an entry to handle for more than 60 s",)


@pytest.fixture
def hub(dsn: str) -> Iterator[pgpubsub.Hub]:
    with pgpubsub.Hub(dsn) as hub:
        yield hub


@pytest.fixture
def orders(hub: pgpubsub.Hub, schema: Schema) -> pgpubsub.Stream[Any]:
    """A stream with three entries, two of which have the same key."""
    stream = hub.stream("orders", schema=schema.name)
    stream.append("17", key="a")
    stream.append("18", key="a")
    stream.append("19", key="b")
    return stream


@pytest.fixture
def of_schema(dsn: str, schema: Schema, examined: Callable[..., Examined]) -> Callable[[], Examined]:
    """What comes of the check of this test's streams."""
    return lambda: examined(dsn, schema=schema.name)


def the_finding(found: Examined) -> Finding:
    (finding,) = found.findings
    assert (found.fine, found.unseen) == ((), ())
    return finding


# -- nobody


@pytest.mark.parametrize(("age", "severity"), [("2 hours", Severity.WARNING), ("25 hours", Severity.CRITICAL)])
def test_a_group_that_nobody_consumes_is_named(
    schema: Schema, orders: Any, of_schema: Callable[[], Examined], age: str, severity: Severity
) -> None:
    with orders.consume("billing") as consumer, consumer.get(PATIENCE):
        pass
    schema.age(age)
    finding = the_finding(of_schema())
    assert finding.severity is severity
    assert "nobody consumes as group 'billing' of stream 'orders': its oldest entry to handle was" in finding.cause
    assert finding.cause.endswith(f"appended {age.removesuffix('ours')} ago")
    assert "stream.process('billing', handler)" in finding.cure
    assert "stream.drop_group('billing')" in finding.cure
    assert finding.evidence["consumers"] == 0
    orders.process("billing", lambda entry: None, follow=False)
    assert of_schema().fine == FINE


def test_a_member_whose_server_process_has_ended_does_not_count(
    schema: Schema, orders: Any, of_schema: Callable[[], Examined]
) -> None:
    schema.do(JOIN)
    schema.do("UPDATE {}.member SET pid = 2147483647")
    schema.age("2 hours")
    assert "nobody consumes as group 'billing'" in the_finding(of_schema()).cause


def test_entries_that_were_appended_just_now_are_no_finding(
    schema: Schema, orders: Any, of_schema: Callable[[], Examined]
) -> None:
    schema.new_group("orders", "billing")
    assert of_schema().fine == FINE


def test_entries_that_another_group_has_handled_do_not_hide_what_this_one_has_not(
    schema: Schema, orders: Any, of_schema: Callable[[], Examined]
) -> None:
    orders.process("shipping", lambda entry: None, follow=False)
    schema.new_group("orders", "billing")
    schema.age("2 minutes")
    assert the_finding(of_schema()).evidence["group"] == "billing"


def test_of_many_groups_some_are_told_one_by_one(
    schema: Schema, orders: Any, of_schema: Callable[[], Examined]
) -> None:
    for number in range(25):
        schema.new_group("orders", f"group {number}")
    schema.age("2 minutes")
    *told, rest = of_schema().findings
    assert len(told) == 20
    assert rest.cause == "5 more groups are behind"
    assert len({one["group"] for one in [*(one.evidence for one in told), *rest.evidence["others"]]}) == 25
    assert len({one.subject for one in [*told, rest]}) == 21


def test_where_one_look_takes_long_it_has_to_do(
    schema: Schema, orders: Any, of_schema: Callable[[], Examined], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "LONG", -1.0)
    monkeypatch.setattr(streams, "sleep", None)
    schema.new_group("orders", "billing")
    schema.age("2 hours")
    assert "nobody consumes" in the_finding(of_schema()).cause


# -- members that do not get on


@pytest.mark.parametrize(("age", "severity"), [("2 minutes", Severity.NOTICE), ("2 hours", Severity.WARNING)])
def test_a_consumer_that_has_an_entry_in_hand_is_named_with_its_session(
    schema: Schema, orders: Any, of_schema: Callable[[], Examined], age: str, severity: Severity
) -> None:
    with orders.consume("billing") as consumer:
        delivery = consumer.get(PATIENCE)
        schema.age(age)
        finding = the_finding(of_schema())
        delivery.acknowledge()
    assert finding.severity is severity
    assert "group 'billing' of stream 'orders' is behind: its consumer '" in finding.cause
    assert f" {os.getpid()}' has entry {delivery.entry.id} in hand, appended" in finding.cause
    assert "py-spy dump --pid" in finding.cure
    assert finding.evidence["session"]["state"] in ("idle", "active")


def test_a_consumer_that_takes_nothing_is_named(schema: Schema, orders: Any, of_schema: Callable[[], Examined]) -> None:
    ((member,),) = schema.do(JOIN)
    schema.do("SELECT {}.take(%s, 32)", member)
    schema.age("2 hours")
    finding = the_finding(of_schema())
    assert "its consumer 'one' has not taken entry" in finding.cause
    assert "it has to come back for the next entry" in finding.cure


def test_an_entry_that_fails_is_named_with_its_error_and_what_waits_behind_it(
    schema: Schema, orders: Any, of_schema: Callable[[], Examined]
) -> None:
    with orders.consume("billing", backoff=3600) as consumer:
        delivery = consumer.get(PATIENCE)
        delivery.fail(ValueError("no such customer"))
        for _ in range(2):  # the other key, and nothing of this one
            with suppress(TimeoutError), consumer.get(0.5):
                pass
        eventually(lambda: schema.do("SELECT 1 FROM {}.parked HAVING count(*) = 2"))
        schema.age("2 minutes")
        finding = the_finding(of_schema())
    assert finding.severity is Severity.WARNING
    assert f"entry {delivery.entry.id} of group 'billing' of stream 'orders', appended 2 min ago," in finding.cause
    assert "has failed once, and is due again in 60 min, and 1 of its key wait behind it" in finding.cause
    assert "ValueError: no such customer" in finding.cause
    assert finding.evidence["attempts"] == 1
    assert finding.evidence["behind it"] == 1


def test_what_is_settled_between_two_looks_is_no_finding(
    schema: Schema, orders: Any, of_schema: Callable[[], Examined], monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.new_group("orders", "billing")
    schema.age("2 hours")
    looks = []

    def handle_all(seconds: float) -> None:
        looks.append(seconds)
        orders.process("billing", lambda entry: None, follow=False)
        schema.new_group("orders", "shipping")  # which is behind, but was not at the first look

    monkeypatch.setattr(streams, "sleep", handle_all)
    found = of_schema()
    assert looks == [streams.AGAIN]
    assert found.fine == FINE


# -- transactions that hold what consumers need


def test_an_open_transaction_that_has_acknowledged_is_named(
    dsn: str, schema: Schema, orders: Any, of_schema: Callable[[], Examined], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "OPEN", 0.0)
    with orders.consume("billing") as consumer, psycopg.connect(dsn) as conn:
        delivery = consumer.get(PATIENCE)
        schema.age("2 hours")
        with delivery:
            delivery.acknowledge(conn)
            finding = the_finding(of_schema())
            pid = conn.info.backend_pid
            conn.commit()
    assert "; a transaction that has acknowledged is open" in finding.cause
    assert f"end the transaction of pid {pid}: SELECT pg_terminate_backend({pid})" in finding.cure
    assert [one["pid"] for one in finding.evidence["transactions that acknowledged"]] == [pid]


def test_a_prepared_transaction_that_holds_the_slots_of_a_member_that_ended_is_named(
    quiet_server: TemporaryServer, examined: Callable[..., Examined], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "OPEN", 0.0)
    with psycopg.connect(quiet_server.dsn(), autocommit=True) as conn:
        pgpubsub.streams.install(conn, "with a prepared one")
        schema = Schema(conn, "with a prepared one")
        schema.do("SELECT {}.append('orders', '17')")
        ((gone,),) = schema.do(JOIN)
        schema.do("SELECT {}.take(%s, 32)", gone)
        conn.execute("BEGIN")
        schema.do("SELECT {}.acknowledge(%s, '{}')", gone)
        conn.execute("PREPARE TRANSACTION 'x''; DROP TABLE orders; --'")
        schema.do(JOIN)
        schema.do("UPDATE {}.member SET since = since - interval '1 minute'")
        schema.do("UPDATE {}.member SET until = since WHERE id = %s", gone)
        schema.age("2 hours")
        finding = the_finding(examined(quiet_server.dsn(), schema=schema.name))
        conn.execute("ROLLBACK PREPARED 'x''; DROP TABLE orders; --'")
        later = the_finding(examined(quiet_server.dsn(), schema=schema.name))
        conn.execute('DROP SCHEMA "with a prepared one" CASCADE')
    assert finding.severity is Severity.WARNING
    assert "are handled by nobody although 1 consume, the oldest appended 2 h ago: 1 that ended" in finding.cause
    assert finding.cure.startswith("COMMIT PREPARED or ROLLBACK PREPARED 'x''; DROP TABLE orders; --'; ")
    assert finding.evidence["transactions that acknowledged"] == [{"prepared": "x'; DROP TABLE orders; --"}]
    assert later.severity is Severity.NOTICE  # as in every restart: another takes over in a moment
    assert "0 of 32 slots are free, 1 members have ended, and nobody has taken over yet" in later.cause
    assert later.cure.startswith("look again in three seconds: where a consumer has just ended, the others take over")


JOIN = "SELECT {}.join_group('orders', 'billing', 'one', 60, NULL, NULL, 0, '{}', NULL, NULL, 0)"


def test_free_slots_are_left_alone_while_members_divide_them(
    schema: Schema, orders: Any, of_schema: Callable[[], Examined]
) -> None:
    schema.do(JOIN)
    schema.age("2 hours")
    assert of_schema().fine == ("groups that are behind have got consumers just now",)
    schema.do("UPDATE {}.member SET since = since - interval '1 minute'")
    finding = the_finding(of_schema())
    assert finding.severity is Severity.NOTICE
    assert "32 of 32 slots are free, 0 members have ended, and nobody has taken over yet" in finding.cause


# -- rights, and where there is nothing to see


def test_a_role_is_told_what_it_needs_to_see_streams_and_sessions(
    dsn: str, schema: Schema, orders: Any, examined: Callable[..., Examined], channel: str
) -> None:
    role = f"nobody of {channel}"
    new_role(schema.conn, role)
    theirs = make_conninfo(dsn, user=role)
    with orders.consume("billing") as consumer:
        delivery = consumer.get(PATIENCE)
        schema.age("2 hours")
        (unseen,) = examined(theirs, schema=schema.name).unseen
        assert unseen.startswith(
            f"role {role!r} may not read the streams in schema {schema.name!r} (no USAGE on the schema"
        )
        schema.do(unseen.partition("): ")[2])
        found = examined(theirs, schema=schema.name)
        assert [one.evidence["entry"] for one in found.findings] == [delivery.entry.id]
        assert "state" not in found.findings[0].evidence["session"]
        (unseen,) = found.unseen
        assert unseen.startswith("sessions that consume, or hold what others do, of other roles")
        schema.do(unseen.partition("do. ")[2])
        found = examined(theirs, schema=schema.name)
        assert found.unseen == ()
        assert found.findings[0].evidence["session"]["state"] in ("idle", "active")
        delivery.acknowledge()
    schema.conn.execute(f"DROP OWNED BY {identifier(role)}")
    schema.conn.execute(f"DROP ROLE {identifier(role)}")


def test_a_database_without_streams_is_fine(dsn: str, examined: Callable[..., Examined]) -> None:
    found = examined(dsn, schema="nothing here")
    assert found.fine == ("no streams are installed in schema 'nothing here'",)
    assert (found.findings, found.unseen) == ((), ())


def test_streams_of_which_something_is_missing_are_not_taken_for_none(
    schema: Schema, of_schema: Callable[[], Examined]
) -> None:
    schema.do("DROP TABLE {}.slot CASCADE")
    (unseen,) = of_schema().unseen
    assert unseen.startswith(f"the streams in schema {schema.name!r} are of another version: there is no slot")


def test_on_a_standby_it_says_that_only_the_primary_knows(standby: Standby, examined: Callable[..., Examined]) -> None:
    assert examined(standby.dsn(), schema="nothing").fine == ("no streams are installed in schema 'nothing'",)
    found = examined(standby.dsn())
    assert found.unseen == ("groups: only the primary knows who consumes",)
    assert found.findings == ()
