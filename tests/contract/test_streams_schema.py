"""The schema of streams: installed anywhere, by anybody who may, at any time; and what it says where it is not."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import psycopg2
import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

import pgpubsub
import pgpubsub.streams
from pgpubsub import ServerRefused, StreamsNotInstalled, UnsupportedConnection
from pgpubsub.core.entries import hint_channel
from pgpubsub.core.position import stream_id
from pgpubsub.streams.statements import Statements, as_array
from tests.contract.faces import PATIENCE, AnyHub, Covered, Worker, together
from tests.contract.groups import administer, consume, info
from tests.contract.owners import OWNERS, connected, engine_of
from tests.contract.streams import (
    KINDS,
    all_payloads,
    entries_of,
    everything,
    following,
    identifier,
    install,
    new_role,
    open_stream,
    payloads_of,
)

Admin = psycopg.Connection[Any]
NewHub = Callable[..., AnyHub]

ODD_NAMES = [
    'a "quoted" one',
    "it's",
    "with spaces, 100% %s %(a)s",
    "a:b :p1 ::text",
    "日本語",
    "é" * 31,
    "x" * 63,
    "{schema} {",
    "back\\slash",
    "$body$ $do$ $1",
    "-- no comment",
]


@pytest.fixture(params=KINDS)
def hub_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def schema(channel: str, admin: Admin) -> Iterator[str]:
    """The name of a schema of one's own, which is not there yet."""
    yield channel
    admin.execute(f"DROP SCHEMA IF EXISTS {identifier(channel)} CASCADE")


@pytest.fixture
def role(channel: str, admin: Admin, dsn: str) -> Iterator[str]:
    """The name for a role of one's own, which is not there yet."""
    name = f"role of {channel}"
    yield name
    if admin.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone():
        admin.execute(f"DROP OWNED BY {identifier(name)} CASCADE")
        admin.execute(f"DROP ROLE {identifier(name)}")


def as_role(dsn: str, role: str) -> str:
    return make_conninfo(dsn, user=role)


def appended(admin: Admin, schema: str, text: str = "17") -> list[Any]:
    """What is there after one more append."""
    pgpubsub.append(admin, "orders", text, schema=schema)
    return payloads_of(admin, "orders", schema)


# -- installing


def test_it_is_installed_and_installed_again(admin: Admin, schema: str) -> None:
    for number in range(3):
        pgpubsub.streams.install(admin, schema)
        assert appended(admin, schema) == ["17"] * (number + 1)
    births = admin.execute(f"SELECT count(*) FROM {identifier(schema)}.birth").fetchone()
    assert births == (1,)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_schema_may_have_any_name(dsn: str, admin: Admin, new_hub_of: NewHub, name: str) -> None:
    try:
        for _ in range(2):
            pgpubsub.streams.install(admin, name)
        pgpubsub.streams.create(admin, "orders", wake="poll", schema=name)
        pgpubsub.append(admin, "orders", "of a transaction", schema=name)
        with new_hub_of("Hub", dsn) as hub:
            orders = open_stream(hub, "orders", schema=name)
            orders.append("a hub's")
            orders.append("once", idempotency_key="1")
            orders.append("once", idempotency_key="1")
            with orders.read() as reader:
                assert following(reader, 3) == ["of a transaction", "a hub's", "once"]
            entries = everything(orders)
            assert everything(orders, entries[0].position) == entries[1:]
    finally:
        admin.execute(f"DROP SCHEMA IF EXISTS {identifier(name)} CASCADE")


@pytest.mark.parametrize("kind", ["SQLAlchemy Connection on psycopg2", "Django connection", "psycopg2", "pgdb"])
@pytest.mark.parametrize("name", ["100% %s", "a:b :p1 ::c"])
def test_so_it_may_over_drivers_with_other_placeholders(dsn: str, admin: Admin, kind: str, name: str) -> None:
    try:
        with connected(kind, dsn) as owner, owner.transaction():
            pgpubsub.streams.install(owner.conn, name)
            pgpubsub.streams.create(owner.conn, "orders", schema=name)
            pgpubsub.append(owner.conn, "orders", "17", schema=name)
        assert payloads_of(admin, "orders", name) == ["17"]
    finally:
        admin.execute(f"DROP SCHEMA IF EXISTS {identifier(name)} CASCADE")


@pytest.mark.parametrize(
    ("name", "error"), [("", ValueError), ("x" * 64, ValueError), ("a\0", ValueError), (None, TypeError)]
)
def test_a_name_that_no_schema_can_have_is_refused(admin: Admin, name: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="the name of a schema is"):
        pgpubsub.streams.install(admin, name)
    with pytest.raises(error, match="the name of a schema is"):
        pgpubsub.streams.sql(name)
    with pytest.raises(error, match="the name of a schema is"):
        pgpubsub.append(admin, "orders", "17", schema=name)


def test_several_may_install_it_at_the_same_time(dsn: str, admin: Admin, schema: str) -> None:
    assert together([partial(install, dsn, schema)] * 8) == [None] * 8
    assert appended(admin, schema) == ["17"]


def test_it_goes_with_the_transaction_that_installs_it(dsn: str, admin: Admin, schema: str) -> None:
    with psycopg.connect(dsn) as connection:
        pgpubsub.streams.install(connection, schema)
        connection.rollback()
    assert admin.execute("SELECT to_regnamespace(%s)", [identifier(schema)]).fetchone() == (None,)


def test_to_install_it_again_waits_for_nobody_who_appends_or_reads(dsn: str, admin: Admin, schema: str) -> None:
    install(dsn, schema)
    with psycopg.connect(dsn) as appending, psycopg.connect(dsn) as reading:
        pgpubsub.append(appending, "orders", "17", schema=schema)
        reading.execute(f"SELECT FROM {identifier(schema)}.entry, {identifier(schema)}.native_birth")
        admin.execute("SET lock_timeout = '2s'")
        pgpubsub.streams.install(admin, schema)
    assert payloads_of(admin, "orders", schema) == ["17"]


def test_and_nobody_waits_for_who_installs_it_again(new_hub: NewHub, dsn: str, admin: Admin, schema: str) -> None:
    """Whether they are at it already or begin while that transaction is open."""
    install(dsn, schema)
    with new_hub() as old, new_hub() as new, psycopg.connect(dsn) as connection:
        orders = open_stream(old, "orders", schema=schema)
        with orders.read() as reader:
            orders.append("before")
            assert following(reader, 1) == ["before"]
            pgpubsub.streams.install(connection, schema)
            orders.append("during")
            assert following(reader, 1) == ["during"]
            others = open_stream(new, "orders", schema=schema)
            others.append("of another")
            admin.execute("SET lock_timeout = '2s'")
            pgpubsub.append(admin, "orders", "of a transaction", schema=schema)
            expected = ["before", "during", "of another", "of a transaction"]
            assert all_payloads(others) == expected
            connection.commit()
            orders.append("after")
            assert following(reader, 3) == [*expected[2:], "after"]
        assert all_payloads(others) == [*expected, "after"]


def test_it_is_installed_again_and_again_while_all_goes_on(new_hub: NewHub, dsn: str, schema: str) -> None:
    install(dsn, schema)
    ended = threading.Event()

    def keep_installing() -> None:
        while not ended.is_set():
            install(dsn, schema)

    with new_hub() as hub, psycopg.connect(dsn, autocommit=True) as sql_user:
        orders = open_stream(hub, "orders", schema=schema)
        worker = Worker(keep_installing)
        with orders.read() as reader:
            for number in range(50):
                orders.append(f"{number}")
                pgpubsub.append(sql_user, "orders", f"{number}", schema=schema)
                assert following(reader, 2) == [f"{number}"] * 2
        ended.set()
        assert worker.outcome() is None


def test_a_role_that_may_create_schemas_installs_it(dsn: str, admin: Admin, schema: str, role: str) -> None:
    database = admin.info.dbname
    new_role(admin, role, f"CREATE ON DATABASE {identifier(database)}")
    with psycopg.connect(as_role(dsn, role)) as connection:
        pgpubsub.streams.install(connection, schema)
    admin.execute(f"REVOKE CREATE ON DATABASE {identifier(database)} FROM {identifier(role)}")
    with psycopg.connect(as_role(dsn, role), autocommit=True) as connection:
        pgpubsub.streams.install(connection, schema)  # it is there, and the role owns it
        assert appended(connection, schema) == ["17"]
    with psycopg.connect(as_role(dsn, role)) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        pgpubsub.streams.install(connection, f"{schema} 2")


@pytest.mark.parametrize("autocommit", [False, True], ids=["in a transaction", "in autocommit mode"])
@pytest.mark.parametrize("kind", OWNERS)
def test_it_is_installed_over_any_connection(kind: str, autocommit: bool, dsn: str, admin: Admin, schema: str) -> None:
    streams = pgpubsub.streams
    with connected(kind, dsn, autocommit=autocommit) as owner:
        run = getattr(owner.notify, "__closure__", None) and _runner_of(owner.notify)

        def work() -> None:
            for wake in ("notify", "poll"):
                if run:
                    run(streams.install_async(owner.conn, schema))
                    run(streams.create_async(owner.conn, "orders", wake=wake, schema=schema))
                else:
                    streams.install(owner.conn, schema)
                    streams.create(owner.conn, "orders", wake=wake, schema=schema)

        if autocommit:
            work()
        else:
            with suppress(ZeroDivisionError), owner.transaction():
                work()
                raise ZeroDivisionError  # which rolls it back
            assert admin.execute("SELECT to_regnamespace(%s)", [identifier(schema)]).fetchone() == (None,)
            with owner.transaction():
                work()
    assert appended(admin, schema) == ["17"]
    rows = admin.execute(f"SELECT name, wake FROM {identifier(schema)}.stream").fetchall()
    assert rows == [("orders", "poll")]


def _runner_of(notify: Callable[..., None]) -> Callable[[Any], Any]:
    """How an asynchronous owner runs a coroutine."""
    variables = dict(zip(notify.__code__.co_freevars, notify.__closure__ or (), strict=True))
    run: Callable[[Any], Any] = variables["runner"].cell_contents.run
    return run


def test_a_connection_that_prepares_everything_installs_it_too(dsn: str, admin: Admin, schema: str) -> None:
    with psycopg.connect(dsn, prepare_threshold=0) as connection:
        pgpubsub.streams.install(connection, schema)
    assert appended(admin, schema) == ["17"]


def test_the_wrong_kind_of_connection_is_told_what_to_do(dsn: str, admin: Admin) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            with pytest.raises(UnsupportedConnection, match=r"use await pgpubsub.streams.install_async\(\)"):
                pgpubsub.streams.install(connection)
            with pytest.raises(UnsupportedConnection, match=r"use await pgpubsub.streams.create_async\(\)"):
                pgpubsub.streams.create(connection, "orders")
        with pytest.raises(UnsupportedConnection, match=r"use pgpubsub.streams.install\(\)"):
            await pgpubsub.streams.install_async(admin)
        with pytest.raises(UnsupportedConnection, match=r"use pgpubsub.streams.create\(\)"):
            await pgpubsub.streams.create_async(admin, "orders")

    asyncio.run(main())
    with pytest.raises(UnsupportedConnection):
        pgpubsub.streams.install(dsn)


# -- sql()


def test_psql_runs_what_sql_prints(dsn: str, admin: Admin, schema: str, tmp_path: Path) -> None:
    file = tmp_path / "streams.sql"
    file.write_text(pgpubsub.streams.sql(schema), "utf-8")
    command = ["psql", "-X", "-1", "-v", "ON_ERROR_STOP=1", "-f", str(file), dsn]
    for _ in range(2):
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert appended(admin, schema) == ["17"]


def test_psql_installs_what_is_piped_into_it(dsn: str, admin: Admin, schema: str) -> None:
    command = ["psql", "-X", "-1", "-v", "ON_ERROR_STOP=1", "-v", "schema=wrong", "-v", "bit=wrong", dsn]
    text = pgpubsub.streams.sql(schema)
    subprocess.run(command, check=True, capture_output=True, timeout=60, input=text, encoding="utf-8")
    assert appended(admin, schema) == ["17"]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_migration_of_alembics_runs_it(dsn: str, admin: Admin, schema: str, driver: str) -> None:
    """`op.execute` makes a `text()` of it, in which colons and percent signs have a meaning."""
    engine = engine_of(driver, dsn, False)
    for _ in range(2):
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text(pgpubsub.streams.sql(schema)))
    assert appended(admin, schema) == ["17"]


def test_a_migration_of_djangos_runs_it(dsn: str, admin: Admin, schema: str) -> None:
    from django.db import migrations
    from django.db.migrations.state import ProjectState

    with connected("Django connection", dsn) as owner:
        operation = migrations.RunSQL(pgpubsub.streams.sql(schema), migrations.RunSQL.noop)
        for _ in range(2):
            with owner.conn.schema_editor() as editor:
                operation.database_forwards("app", editor, ProjectState(), ProjectState())
    assert appended(admin, schema) == ["17"]


# -- not installed


def test_where_it_is_not_installed_the_error_names_the_command(
    hub: AnyHub, admin: Admin, dsn: str, schema: str
) -> None:
    orders = open_stream(hub, "orders", schema=schema)
    calls: list[Callable[[], object]] = [
        lambda: orders.append("17"),
        lambda: orders.append("17", idempotency_key="1"),
        lambda: orders.append_many(["17", "18"]),
        lambda: everything(orders),
        orders.read().__enter__,
        orders.read(pgpubsub.END).__enter__,
    ]
    for call in calls:
        with pytest.raises(StreamsNotInstalled) as caught:
            call()
        assert f"run pgpubsub.streams.install(conn, {schema!r}) once" in str(caught.value)
        assert isinstance(caught.value.__cause__, psycopg.Error)
    install(dsn, schema)
    orders.append("18")  # the same hub, the same stream
    orders.append_many(["19"])
    with orders.read() as reader:
        assert following(reader, 2) == ["18", "19"]
    assert pgpubsub.append(admin, "orders", "20", schema=schema) > 0


def test_in_a_transaction_the_error_is_the_drivers(admin: Admin, dsn: str, schema: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        pgpubsub.append(admin, "orders", "17", schema=schema)
    assert caught.value.sqlstate == "3F000"  # there is no such schema
    admin.execute(f"CREATE SCHEMA {identifier(schema)}")
    with pytest.raises(psycopg.errors.UndefinedFunction):
        pgpubsub.append(admin, "orders", "17", schema=schema)
    connection = psycopg2.connect(dsn)
    with pytest.raises(psycopg2.errors.UndefinedFunction):
        pgpubsub.append(connection, "orders", "17", schema=schema)
    connection.close()


def test_many_who_append_where_it_is_not_installed_are_all_told(new_hub: NewHub, schema: str) -> None:
    with new_hub() as hub:
        orders = open_stream(hub, "orders", schema=schema)
        outcomes = together([partial(orders.append, "17")] * 20)
        assert [type(outcome) for outcome in outcomes] == [StreamsNotInstalled] * 20


@pytest.mark.parametrize(
    ("number", "serves_from", "words"),
    [
        (
            0,
            0,
            r"have version 0 and this pgpubsub needs 1: run pgpubsub.streams.install\(conn, .*\), which may be done",
        ),
        (7, 5, "have version 7, which serves versions from 5 on, and this pgpubsub has 1: use a newer pgpubsub"),
        (7, 1, None),
    ],
    ids=["too old", "too new", "newer"],
)
def test_another_version_says_so_unless_it_serves_ours(
    hub: AnyHub, admin: Admin, dsn: str, schema: str, number: int, serves_from: int, words: str | None
) -> None:
    install(dsn, schema)
    versions = f"{identifier(schema)}.version"
    admin.execute(f"UPDATE {versions} SET number = %s, serves_from = %s", [number, serves_from])
    orders = open_stream(hub, "orders", schema=schema)
    calls: list[Callable[[], object]] = [
        lambda: orders.append("17"),
        lambda: orders.append_many(["17"]),
        lambda: everything(orders),
    ]
    for call in calls:
        if words is None:
            call()
        else:
            with pytest.raises(StreamsNotInstalled, match=words):
                call()
    assert len(entries_of(admin, "orders", schema)) == (2 if words is None else 0)
    install(dsn, schema)
    if number == 0:  # now it is up to date
        orders.append("18")
        assert all_payloads(orders) == ["18"]


def test_a_table_without_any_version_is_told_apart_too(hub: AnyHub, admin: Admin, dsn: str, schema: str) -> None:
    install(dsn, schema)
    admin.execute(f"DELETE FROM {identifier(schema)}.version")
    orders = open_stream(hub, "orders", schema=schema)
    for call in (lambda: orders.append("17"), lambda: everything(orders)):
        with pytest.raises(StreamsNotInstalled, match="the table of versions is empty"):
            call()


def test_after_a_restore_it_has_to_be_installed_once_more(hub: AnyHub, admin: Admin, dsn: str, schema: str) -> None:
    """A dump keeps transaction ids, and the cluster in which it is restored has others."""
    install(dsn, schema)
    orders = open_stream(hub, "orders", schema=schema)
    for text in ("1", "2"):
        orders.append(text)
    first = everything(orders)[0].position
    admin.execute(f"UPDATE {identifier(schema)}.birth SET born = (born::text::bigint - 1)::text::xid8")
    admin.execute(f"UPDATE {identifier(schema)}.entry SET xid = '999999999'")
    with hub_of_the_same_kind(hub, dsn) as other:
        orders = open_stream(other, "orders", schema=schema)
        with pytest.raises(StreamsNotInstalled, match="were restored from a dump.*run pgpubsub.streams.install"):
            everything(orders)
        install(dsn, schema)
        orders.append("3")
        assert all_payloads(orders) == ["1", "2", "3"]
        with orders.read(first) as reader:
            gap = reader.get(20)
            assert (gap.reason, gap.channels) == (pgpubsub.GapReason.RESTORED, ("orders",))
            assert following(reader, 3) == ["1", "2", "3"]


def hub_of_the_same_kind(hub: AnyHub, dsn: str) -> AnyHub:
    if isinstance(hub, Covered):
        return Covered(pgpubsub.AsyncHub(dsn), hub.loop)
    return pgpubsub.Hub(dsn)


# -- rights


def appending_rights(schema: str) -> list[str]:
    """As the schema's file says, at its head."""
    of = identifier(schema)
    return [
        f"USAGE ON SCHEMA {of}",
        f"SELECT ON {of}.version",
        f"SELECT, INSERT ON {of}.stream, {of}.entry",
        f"USAGE ON SEQUENCE {of}.entry_id",
    ]


def reading_rights(schema: str) -> list[str]:
    return [f"USAGE ON SCHEMA {identifier(schema)}", f"SELECT ON ALL TABLES IN SCHEMA {identifier(schema)}"]


def test_a_role_with_few_rights_appends(dsn: str, admin: Admin, new_hub: NewHub, schema: str, role: str) -> None:
    install(dsn, schema)
    new_role(admin, role, *appending_rights(schema))
    with new_hub(as_role(dsn, role)) as hub:
        orders = open_stream(hub, "orders", schema=schema)
        orders.append("1")
        orders.append("2", idempotency_key="2")
        orders.append_many(["3"])
    with psycopg.connect(as_role(dsn, role), autocommit=True) as connection:
        pgpubsub.append(connection, "orders", "4", schema=schema)
        pgpubsub.append(connection, "other orders", b"5", schema=schema, idempotency_key="5")
    assert payloads_of(admin, "orders", schema) == ["1", "2", "3", "4"]
    assert payloads_of(admin, "other orders", schema) == ["35"]


def test_a_role_with_fewer_reads_and_is_told_that_it_may_not_append(
    dsn: str, admin: Admin, new_hub: NewHub, schema: str, role: str
) -> None:
    install(dsn, schema)
    new_role(admin, role, *reading_rights(schema))
    with new_hub(as_role(dsn, role)) as hub:
        orders = open_stream(hub, "orders", schema=schema)
        with orders.read() as reader:
            pgpubsub.append(admin, "orders", "1", schema=schema)
            assert following(reader, 1) == ["1"]
            for call in (
                lambda: orders.append("2"),
                lambda: orders.append("2", idempotency_key="2"),
                lambda: orders.append_many(["2"]),
            ):
                with pytest.raises(ServerRefused, match="permission denied") as caught:
                    call()
                assert caught.value.sqlstate == "42501"
        assert all_payloads(orders) == ["1"]


def consuming_rights(schema: str) -> list[str]:
    """As the groups' file says, at its head."""
    of = identifier(schema)
    tables = ", ".join(f"{of}.{table}" for table in ("consumer_group", "slot", "member", "parked", "acknowledged"))
    return [
        *reading_rights(schema),
        f"INSERT ON {of}.life, {of}.stream",
        f"INSERT, UPDATE, DELETE ON {tables}",
    ]


def test_a_role_with_few_rights_consumes_and_looks_after_its_group(
    dsn: str, admin: Admin, new_hub: NewHub, schema: str, role: str
) -> None:
    install(dsn, schema)
    new_role(admin, role, *consuming_rights(schema))
    with new_hub(as_role(dsn, role)) as hub:
        orders = open_stream(hub, "orders", schema=schema)
        for payload in ("handled", "fails", "in a transaction"):
            pgpubsub.append(admin, "orders", payload, schema=schema)
        with consume(orders, "billing", attempts=1) as consumer:
            with consumer.get(PATIENCE):
                pass
            consumer.get(PATIENCE).fail("no")
            with consumer.get(PATIENCE).transaction():
                pass
            assert administer(orders, "redrive", "billing") == 1
            consumer.get(PATIENCE).fail("no")
            assert administer(orders, "discard", "billing") == 1
        administer(orders, "seek", "billing", pgpubsub.BEGINNING)
        assert info(orders, "billing").lag == 3


def test_a_role_without_rights_is_told_that_it_may_not_read(
    dsn: str, admin: Admin, new_hub: NewHub, schema: str, role: str
) -> None:
    install(dsn, schema)
    new_role(admin, role)
    with new_hub(as_role(dsn, role)) as hub:
        with pytest.raises(ServerRefused, match="permission denied") as caught:
            open_stream(hub, "orders", schema=schema).read().__enter__()
        assert caught.value.sqlstate == "42501"


# -- what SQL and Python agree upon


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=300))
@settings(max_examples=200)
def test_a_stream_has_the_same_number_everywhere(number_of: Callable[[str], tuple[int, str]], name: str) -> None:
    assert number_of(name) == (stream_id(name), hint_channel(stream_id(name)))


@pytest.fixture(scope="module")
def number_of(installed: str) -> Iterator[Callable[[str], tuple[int, str]]]:
    with psycopg.connect(installed, autocommit=True) as connection:
        query = "SELECT id, pgpubsub.hint_channel(id) FROM (SELECT pgpubsub.stream_id(%s) AS id) AS its"

        def ask(name: str) -> tuple[int, str]:
            row: Any = connection.execute(query, [name]).fetchone()
            return row[0], row[1]

        yield ask


def test_it_has_in_a_database_of_another_encoding(dsn: str, latin1: str) -> None:
    there = make_conninfo(dsn, dbname=latin1)
    install(there)
    with psycopg.connect(there) as connection:
        for name in ("orders", "é", "ÿ ", "x" * 900):
            row = connection.execute("SELECT pgpubsub.stream_id(%s)", [name]).fetchone()
            assert row == (stream_id(name),)


# -- plans


@pytest.fixture(scope="module")
def crowded(dsn: str) -> Iterator[str]:
    """A database with 200,000 entries in one stream, and some in others."""
    name = f"crowded {os.getpid()}"
    there = make_conninfo(dsn, dbname=name)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {identifier(name)}")
        with psycopg.connect(there, autocommit=True) as connection:
            pgpubsub.streams.install(connection)
            for _ in range(20):
                connection.execute(
                    "INSERT INTO pgpubsub.entry (stream, payload, idempotency_key)"
                    " SELECT pgpubsub.stream_id('orders'), 'x', gen_random_uuid() FROM generate_series(1, 10000)"
                )
            connection.execute(
                "INSERT INTO pgpubsub.entry (stream, payload) SELECT number % 100, 'x' FROM generate_series(1, 10000)"
                " AS number"
            )
            connection.execute("ANALYZE")
        yield there
        admin.execute(f"DROP DATABASE {identifier(name)} WITH (FORCE)")


STALE = 100
"""Transactions in an old list."""


@pytest.mark.parametrize("how", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("name", ["look", "measure", "first", "page", "watch", "anchors", "find"])
def test_no_statement_reads_the_whole_table(crowded: str, name: str, how: str) -> None:
    """However long ago the position was taken whose list of open transactions it is."""
    with psycopg.connect(crowded, autocommit=True, prepare_threshold=0) as connection:
        connection.execute("SET jit = off")
        connection.execute(f"SET plan_cache_mode = {how}")
        row: Any = connection.execute("SELECT max(xid)::text::bigint, max(id) FROM pgpubsub.entry").fetchone()
        xid, id = row
        stale = as_array(range(3, 3 + STALE))
        stream = str(stream_id("orders"))
        parameters = {
            "stream": stream,
            "below": str(xid - 1),
            "open": stale,
            "target": str(xid + 1),
            "target_open": "{}",
            "after": str(id - 3000),
            "until": str(id),
            "rows": "2000",
            "bytes": "4000000",
            "lows": "{5,7}",
            "highs": "{6,8}",
            "streams": as_array([int(stream)] * 100),
            "belows": as_array([xid - 1] * 100),
            "opens": [stale] * 100,
            "ids": "{1,2}",
            "xids": "{5,7}",
            "times": "{1,2}",
            "running": stale,
            "xmax": str(xid + 1),
            "removed": "0",
        }
        statement: Any = getattr(Statements("pgpubsub"), name)
        cursor = psycopg.Cursor(connection)
        for _ in range(2):
            cursor.execute("EXPLAIN (ANALYZE, TIMING OFF) " + statement, parameters)
        plan = "\n".join(line for (line,) in cursor.fetchall())
        assert "Seq Scan on entry" not in plan, plan
        assert "Index Scan" in plan or "Index Only Scan" in plan, plan


@pytest.mark.parametrize("how", ["force_custom_plan", "force_generic_plan"])
def test_nor_does_an_append_with_idempotency_keys(crowded: str, how: str) -> None:
    with psycopg.connect(crowded, autocommit=True) as connection:
        connection.execute(f"SET plan_cache_mode = {how}")
        connection.execute(
            "PREPARE append (bigint[], text[], text[], bytea[], text[], text[]) AS "
            + Statements("pgpubsub").append_once
        )
        keys = ",".join(f"'{number}'" for number in range(100))
        many = f"array_fill(pgpubsub.stream_id('orders'), ARRAY[100]), ARRAY[{keys}], ARRAY[{keys}],"
        nothing = "array_fill(NULL::bytea, ARRAY[100]), array_fill(NULL::text, ARRAY[100])"
        rows = connection.execute(f"EXPLAIN EXECUTE append ({many} {nothing}, ARRAY[{keys}])").fetchall()
        plan = "\n".join(line for (line,) in rows)
        assert "Seq Scan on entry" not in plan, plan
        assert "entry_once" in plan, plan


def test_what_somebody_has_not_committed_costs_nothing_to_read(crowded: str) -> None:
    """Others who append meanwhile have higher transaction ids."""
    with psycopg.connect(crowded) as busy, psycopg.connect(crowded, autocommit=True) as connection:
        row: Any = connection.execute("SELECT max(xid)::text::bigint + 1 FROM pgpubsub.entry").fetchone()
        busy.execute(
            "INSERT INTO pgpubsub.entry (stream, payload)"
            " SELECT pgpubsub.stream_id('orders'), 'x' FROM generate_series(1, 20000)"
        )
        pgpubsub.append(connection, "orders", "17")
        parameters = {
            "stream": str(stream_id("orders")),
            "below": str(row[0]),
            "open": "{}",
            "rows": "2000",
            "removed": "0",
        }
        statement: Any = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) " + Statements("pgpubsub").look
        lines = connection.execute(statement, {**parameters, "bytes": "4000000"}).fetchall()
        plan = "\n".join(line for (line,) in lines)
        assert "Seq Scan on entry" not in plan, plan
        pages = re.search(r"Buffers: shared hit=(\d+)(?: read=(\d+))?", plan)  # the first line is about all
        assert pages is not None
        assert int(pages[1]) + int(pages[2] or 0) < 100, plan  # of over 200
        busy.rollback()
