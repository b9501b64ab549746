"""Triggers installed, replaced, refused, swept up and dropped."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
from psycopg.conninfo import make_conninfo

import pgpubsub
import pgpubsub.streams
from pgpubsub import triggers
from pgpubsub.testing.server import find_binaries
from tests.contract.faces import Worker
from tests.contract.owners import OWNERS, connected, options_of
from tests.contract.streams import identifier, new_role
from tests.contract.triggers import Admin, Told, admin, insert, quoted, table, told

__all__ = ["admin", "table", "told"]


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
    for operator, left, right in (
        ("=", "name", "name"),
        ("=", "oid", "oid"),
        ("||", "name", "text"),
        ("->>", "jsonb", "text"),
    ):
        admin.execute(
            f"CREATE OR REPLACE FUNCTION planted.operator({left}, {right}) RETURNS bool LANGUAGE plpgsql AS"
            " 'BEGIN RAISE EXCEPTION ''planted''; END'"
        )
        admin.execute(
            f"CREATE OPERATOR planted.{operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = planted.operator)"
        )
    admin.execute(f"SET {setting}")
    triggers.install(admin, table, to=channel)
    triggers.install(admin, table, to=channel, name="other")
    triggers.drop(admin, table, "other")
    assert [one.name for one in triggers.installed(admin) if one.table == table] == ["pgpubsub"]
    assert admin.execute("SELECT current_setting(%s) || ' '", [setting.split(" = ")[0]]).fetchone() == (
        setting.split(" = ")[1] + " ",
    )
    admin.execute("RESET ALL")
    insert(admin, table, (1, "a", 1))
    assert [change["reduced"] for change in told()] == [None]
    admin.execute("DROP SCHEMA planted CASCADE")


@pytest.mark.parametrize("state", ["DISABLE", "ENABLE ALWAYS", "ENABLE REPLICA"])
def test_whether_it_is_enabled_stays_as_it_was_set(
    admin: Admin, table: tuple[str, str], channel: str, state: str
) -> None:
    triggers.install(admin, table, to=channel)
    admin.execute(f"ALTER TABLE {quoted(table)} {state} TRIGGER {identifier('pgpubsub update')}")
    enabled = "SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = %s::regclass ORDER BY tgname"
    before = admin.execute(enabled, [quoted(table)]).fetchall()
    for key_only in (False, True):
        triggers.install(admin, table, to=channel, key_only=key_only)
        assert admin.execute(enabled, [quoted(table)]).fetchall() == before
    assert dict(before)["pgpubsub update"] != "O"


def test_a_replica_tells_if_it_is_set_to(admin: Admin, table: tuple[str, str], channel: str, told: Told) -> None:
    triggers.install(admin, table, to=channel)
    admin.execute("SET session_replication_role = replica")
    insert(admin, table, (1, "a", 1))
    assert told() == []
    admin.execute(f"ALTER TABLE {quoted(table)} ENABLE ALWAYS TRIGGER {identifier('pgpubsub insert')}")
    insert(admin, table, (2, "a", 1))
    assert [one["key"] for one in told()] == [{"id": 2}]


def test_what_a_table_that_was_dropped_has_left_behind_is_swept_up(admin: Admin, channel: str) -> None:
    schema = f"swept {channel}"
    admin.execute(f"CREATE SCHEMA {identifier(schema)}")
    for name in ("first", "first", "second"):
        admin.execute(f"CREATE TABLE {quoted((schema, name))} (id int PRIMARY KEY)")
        triggers.install(admin, (schema, name), to=channel)
        if name == "first":
            admin.execute(f"DROP TABLE {quoted((schema, name))}")
    for catalog, column in (("pg_proc", "proname"), ("pg_class", "relname")):
        namespace = "pronamespace" if catalog == "pg_proc" else "relnamespace"
        query = f"SELECT {column} FROM {catalog} WHERE {namespace} = %s::regnamespace AND {column} LIKE 'pgpubsub %%'"
        names = [name for (name,) in admin.execute(query.encode(), [identifier(schema)])]
        assert names == ["pgpubsub second" if catalog == "pg_proc" else "pgpubsub second failures"]
    admin.execute(f"DROP SCHEMA {identifier(schema)} CASCADE")


def test_nothing_is_swept_up_that_only_looks_like_ours(dsn: str, admin: Admin, channel: str) -> None:
    role, schema = f"planter of {channel}", identifier(f"planted {channel}")
    new_role(admin, role)
    admin.execute(f"CREATE SCHEMA {schema}")
    admin.execute(f"GRANT ALL ON SCHEMA {schema} TO {identifier(role)}")
    body = "RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    admin.execute(f"CREATE FUNCTION {schema}.innocent() {body}")
    admin.execute(f'CREATE SEQUENCE {schema}."innocent failures"')
    admin.execute(f'CREATE SEQUENCE {schema}."guilty failures"')
    with psycopg.connect(make_conninfo(dsn, user=role), autocommit=True) as planter:
        planter.execute("SET check_function_bodies = off")
        for function in ("innocent(int)", "guilty()"):
            planter.execute(f"CREATE FUNCTION {schema}.{function} {body}")
            planter.execute(f"COMMENT ON FUNCTION {schema}.{function} IS 'pgpubsub trigger: {{}}'")
    admin.execute(f"CREATE TABLE {schema}.orders (id int PRIMARY KEY)")
    triggers.install(admin, (f"planted {channel}", "orders"), to=channel)
    for what in ("innocent()", '"innocent failures"', '"guilty failures"'):
        find = "to_regprocedure" if what.endswith(")") else "to_regclass"
        assert admin.execute(f"SELECT {find}(%s) IS NOT NULL", [f"{schema}.{what}"]).fetchone() == (True,)
    admin.execute(f"DROP SCHEMA {schema} CASCADE")
    admin.execute(f"DROP ROLE {identifier(role)}")


def test_an_owner_who_may_not_create_in_the_schema_is_told_what_to_do(dsn: str, admin: Admin, channel: str) -> None:
    role, schema = f"owner of {channel}", f"closed {channel}"
    new_role(admin, role)
    admin.execute(f"CREATE SCHEMA {identifier(schema)}")
    admin.execute(f"GRANT USAGE ON SCHEMA {identifier(schema)} TO {identifier(role)}")
    admin.execute(f"CREATE TABLE {quoted((schema, 'orders'))} (id int PRIMARY KEY)")
    admin.execute(f"ALTER TABLE {quoted((schema, 'orders'))} OWNER TO {identifier(role)}")
    with psycopg.connect(make_conninfo(dsn, user=role), autocommit=True) as owner:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="may not create the function") as refused:
            triggers.install(owner, (schema, "orders"), to=channel)
        hint = str(refused.value.diag.message_hint)
        assert hint.startswith(f"GRANT CREATE ON SCHEMA {identifier(schema)} TO {identifier(role)};")
        triggers.install(admin, (schema, "orders"), to=channel)  # which does not need it
        triggers.drop(owner, (schema, "orders"))
        admin.execute(hint.partition(";")[0].encode())
        triggers.install(owner, (schema, "orders"), to=channel)
    admin.execute(f"DROP OWNED BY {identifier(role)} CASCADE")
    admin.execute(f"DROP SCHEMA {identifier(schema)} CASCADE")
    admin.execute(f"DROP ROLE {identifier(role)}")


def test_a_dump_has_all_of_it(dsn: str, admin: Admin, channel: str) -> None:
    schema = identifier(f"dumped {channel}")
    admin.execute(f"CREATE SCHEMA {schema}")
    admin.execute(f"CREATE TABLE {schema}.orders (id int PRIMARY KEY)")
    table = (f"dumped {channel}", "orders")
    triggers.install(admin, table, to=channel, level="statement", when="1 / (NEW.id - 5) < 9", on=["insert"])
    insert(admin, table, (5,))
    (before,) = [one for one in triggers.installed(admin) if one.table == table]
    assert before.failures == 1
    copy = f"copy of {channel}"
    admin.execute(f"CREATE DATABASE {identifier(copy)}")
    dump = subprocess.run([binary("pg_dump"), "--dbname", dsn, "--schema", schema], check=True, capture_output=True)
    with psycopg.connect(make_conninfo(dsn, dbname=copy), autocommit=True) as other:
        for number in range(50):  # so that other things have the numbers that these had
            other.execute(f"CREATE SEQUENCE s{number}".encode())
        options = ["--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", make_conninfo(dsn, dbname=copy)]
        subprocess.run([binary("psql"), *options], input=dump.stdout, check=True, capture_output=True)
        other.execute("SET client_min_messages = error")
        insert(other, table, (6,))
        other.execute(f"DELETE FROM {quoted(table)}")
        insert(other, table, (5,))
        (after,) = [one for one in triggers.installed(other) if one.table == table]
        assert after == dataclasses.replace(before, failures=2)
        triggers.install(other, table, to=channel, level="statement", when="1 / (NEW.id - 5) < 9", on=["insert"])
    admin.execute(f"DROP DATABASE {identifier(copy)} WITH (FORCE)")
    admin.execute(f"DROP SCHEMA {schema} CASCADE")


def binary(name: str) -> Path:
    """A program of the server's that tests run on."""
    directory = os.environ.get("PGPUBSUB_TEST_BINARIES")
    return (Path(directory) if directory else find_binaries()) / name


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
        ({"when": "$1 > 0"}, psycopg.errors.UndefinedParameter, "has a parameter"),
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
    triggers.install(admin, table, to=channel, when="true")


def test_a_channel_whose_name_is_too_long_in_the_servers_encoding_is_refused(
    dsn: str, admin: Admin, channel: str
) -> None:
    name = identifier(f"euc_jp {channel}")
    admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C'")
    with psycopg.connect(make_conninfo(dsn, dbname=f"euc_jp {channel}"), client_encoding="UTF8") as other:
        other.execute("CREATE TABLE orders (id int PRIMARY KEY)")
        with pytest.raises(psycopg.errors.InvalidName, match="has 90 bytes in this database's encoding"):
            triggers.install(other, "orders", to="é" * 30)
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
