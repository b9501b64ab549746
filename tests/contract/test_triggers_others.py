"""Triggers among others: who forge comments, stand in the way, take tables over or move them, or come along."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgpubsub import triggers
from tests.contract.faces import Worker
from tests.contract.sending import wait_until
from tests.contract.streams import identifier, new_role
from tests.contract.triggers import Admin, Told, admin, failures_of, insert, quoted, replace_table, table, told

__all__ = ["admin", "table", "told"]

FORGED = 'pgpubsub trigger: {"name": "pgpubsub"}'


@pytest.fixture
def schema(admin: Admin, channel: str) -> Iterator[str]:
    """A schema of one's own."""
    name = f"schema of {channel}"
    admin.execute(f"CREATE SCHEMA {identifier(name)}")
    yield name
    admin.execute(f"DROP SCHEMA {identifier(name)} CASCADE")


@pytest.fixture
def other(dsn: str, admin: Admin, schema: str, channel: str) -> Iterator[Admin]:
    """Another role, that may create things in the schema."""
    role = f"other {channel}"
    new_role(admin, role, f"ALL ON SCHEMA {identifier(schema)}")
    with psycopg.connect(make_conninfo(dsn, user=role), autocommit=True) as connection:
        yield connection
    admin.execute(f"DROP OWNED BY {identifier(role)} CASCADE")
    admin.execute(f"DROP ROLE {identifier(role)}")


def forge(other: Admin, schema: str, comment: str, name: str = "forged") -> str:
    function = f"{identifier(schema)}.{name}()"
    other.execute(f"CREATE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    other.execute(sql.SQL("COMMENT ON FUNCTION {} IS {}").format(sql.SQL(function), comment))
    return function


def functions_in(admin: Admin, schema: str) -> list[tuple[str, str]]:
    """Functions and sequences, and who owns them."""
    query = """
        SELECT proname::text, pg_get_userbyid(proowner)::text FROM pg_proc WHERE pronamespace = %(schema)s::regnamespace
         UNION ALL
        SELECT relname, pg_get_userbyid(relowner) FROM pg_class
         WHERE relnamespace = %(schema)s::regnamespace AND relkind = 'S' ORDER BY 1"""
    return admin.execute(query, {"schema": identifier(schema)}).fetchall()


def new_table(owner: Admin, schema: str, name: str = "orders") -> tuple[str, str]:
    owner.execute(f"CREATE TABLE {quoted((schema, name))} (id int PRIMARY KEY)")
    return schema, name


# -- comments that look like ours


def test_what_is_left_behind_and_needed_by_others_is_nobodys_trouble(
    admin: Admin, other: Admin, schema: str, channel: str, told: Told
) -> None:
    orders, gone = new_table(admin, schema), new_table(admin, schema, "gone")
    theirs = forge(other, schema, FORGED)
    triggers.install(admin, gone, to=channel)
    admin.execute(f"DROP TABLE {quoted(gone)}")
    for number, function in enumerate((theirs, f'{identifier(schema)}."pgpubsub gone"()')):
        other.execute(f"CREATE VIEW {quoted((schema, f'v{number}'))} AS SELECT '{function}'::regprocedure AS it")
    triggers.install(admin, orders, to=channel)
    insert(admin, orders, (1,))
    assert [one["key"] for one in told()] == [{"id": 1}]


@pytest.mark.parametrize("comment", [FORGED, 'pgpubsub trigger: {"name": "pgpubsub"', "pgpubsub trigger: {bad"])
def test_a_function_of_another_role_is_not_taken_over(
    admin: Admin, other: Admin, schema: str, channel: str, told: Told, comment: str
) -> None:
    orders = new_table(admin, schema)
    admin.execute(f"GRANT TRIGGER ON {quoted(orders)} TO {identifier(other.info.user)}")
    function = forge(other, schema, comment)
    other.execute(f"CREATE TRIGGER y AFTER INSERT ON {quoted(orders)} FOR EACH ROW EXECUTE FUNCTION {function}")
    triggers.install(admin, orders, to=channel, definer=True)
    triggers.install(admin, orders, to=channel, definer=True)
    insert(admin, orders, (1,))
    assert [one["key"] for one in told()] == [{"id": 1}]
    owner = admin.info.user
    assert functions_in(admin, schema) == [
        ("forged", other.info.user),
        ("pgpubsub orders", owner),
        ("pgpubsub orders failures", owner),
    ]
    assert len([one for one in triggers.installed(admin) if one.table == orders]) == 1


def test_the_owner_drops_a_trigger_whose_function_is_anothers(
    admin: Admin, other: Admin, schema: str, channel: str
) -> None:
    orders = new_table(other, schema)
    function = forge(admin, schema, FORGED)
    admin.execute(f"CREATE TRIGGER y AFTER INSERT ON {quoted(orders)} FOR EACH ROW EXECUTE FUNCTION {function}")
    triggers.drop(other, orders)
    query = "SELECT count(*) FROM pg_trigger WHERE tgrelid = %s::regclass"
    assert admin.execute(query, [quoted(orders)]).fetchone() == (0,)
    assert functions_in(admin, schema) == [("forged", admin.info.user)]


@pytest.mark.parametrize(
    "part",
    [{"on": ["boo"]}, {"name": 5}, {"to": ""}, {"level": "table"}, {"key_only": "yes"}, {"columns": [5]}, {"when": 5}],
)
def test_settings_that_nobody_could_have_asked_for_are_not_listed(
    admin: Admin, other: Admin, schema: str, channel: str, part: dict[str, Any]
) -> None:
    orders = new_table(other, schema)
    settings = {"name": "x", "to": channel, "on": ["insert"], "columns": None, "key_only": False, "old": False}
    settings |= {"when": None, "level": "row", "definer": False}
    for number, comment in enumerate(({}, part)):
        function = forge(other, schema, f"pgpubsub trigger: {json.dumps(settings | comment)}", f"forged{number}")
        other.execute(
            f"CREATE TRIGGER y{number} AFTER INSERT ON {quoted(orders)} FOR EACH ROW EXECUTE FUNCTION {function}"
        )
    assert [one.name for one in triggers.installed(admin) if one.table == orders] == ["x"]


# -- tables that change hands, or places


@pytest.mark.parametrize("who", ["the new owner", "a superuser"])
def test_a_table_with_a_new_owner_gets_a_function_of_his(
    admin: Admin, other: Admin, schema: str, channel: str, told: Told, who: str
) -> None:
    orders = new_table(admin, schema)
    triggers.install(admin, orders, to=channel, definer=True)
    admin.execute(f"ALTER TABLE {quoted(orders)} DISABLE TRIGGER {identifier('pgpubsub delete')}")
    admin.execute(f"ALTER TABLE {quoted(orders)} OWNER TO {identifier(other.info.user)}")
    conn = other if who == "the new owner" else admin
    triggers.install(conn, orders, to=channel, definer=True)
    query = """
        SELECT DISTINCT pg_get_userbyid(proowner)::text FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
         WHERE tgrelid = %s::regclass"""
    assert admin.execute(query, [quoted(orders)]).fetchall() == [(other.info.user,)]
    insert(other, orders, (1,))
    other.execute(f"DELETE FROM {quoted(orders)}")
    assert [one["op"] for one in told()] == ["insert"]
    triggers.install(conn, orders, to=channel, key_only=True)
    triggers.drop(other, orders)
    assert [one for one in triggers.installed(admin) if one.table == orders] == []


def test_a_table_that_has_moved_takes_its_function_with_it(
    admin: Admin, schema: str, table: tuple[str, str], channel: str, told: Told
) -> None:
    triggers.install(admin, table, to=channel)
    admin.execute(f"ALTER TABLE {quoted(table)} SET SCHEMA {identifier(schema)}")
    triggers.install(admin, (schema, table[1]), to=channel)
    assert len(functions_in(admin, schema)) == 2
    query = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname = %s"
    assert admin.execute(query, [f"pgpubsub {table[1]}"[:50]]).fetchone() == (0,)
    insert(admin, (schema, table[1]), (1, "a", 1))
    assert [one["schema"] for one in told()] == [schema]
    admin.execute(f"ALTER TABLE {quoted((schema, table[1]))} SET SCHEMA public")


@pytest.mark.parametrize(("state", "letter"), [("DISABLE", "D"), ("ENABLE ALWAYS", "A"), ("ENABLE REPLICA", "R")])
def test_an_operation_that_is_added_is_enabled_as_the_others_are(
    admin: Admin, table: tuple[str, str], channel: str, state: str, letter: str
) -> None:
    triggers.install(admin, table, to=channel, on=["insert"])
    admin.execute(f"ALTER TABLE {quoted(table)} {state} TRIGGER {identifier('pgpubsub insert')}")
    triggers.install(admin, table, to=channel)
    query = "SELECT tgenabled FROM pg_trigger WHERE tgrelid = %s::regclass"
    assert [found for (found,) in admin.execute(query, [quoted(table)])] == [letter] * 3


def test_a_count_that_was_dropped_is_made_again(admin: Admin, schema: str, channel: str) -> None:
    orders = new_table(admin, schema)
    for _ in range(2):
        triggers.install(admin, orders, to=channel, when="1 / (NEW.id - 5) < 9", on=["insert"])
        insert(admin, orders, (5,))
        admin.execute(f"TRUNCATE {quoted(orders)}")
        assert failures_of(admin, orders) == [1]
        admin.execute(f'DROP SEQUENCE {identifier(schema)}."pgpubsub orders failures"')


# -- at the same time


@pytest.mark.parametrize("name", ["orders", "x" * 55], ids=["other names", "names that begin alike"])
def test_two_tables_of_a_schema_get_triggers_at_the_same_time(
    dsn: str, admin: Admin, schema: str, channel: str, told: Told, name: str
) -> None:
    gone = new_table(admin, schema, "gone")
    triggers.install(admin, gone, to=channel)
    admin.execute(f"DROP TABLE {quoted(gone)}")
    one, other = new_table(admin, schema, f"{name}1"), new_table(admin, schema, f"{name}2")
    with psycopg.connect(dsn) as first, psycopg.connect(dsn) as second:
        triggers.install(first, one, to=channel)

        def install() -> None:
            triggers.install(second, other, to=channel)
            second.commit()

        worker = Worker(install)
        waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
        wait_until(lambda: not worker.busy or admin.execute(waits, [second.info.backend_pid]).fetchone() == (True,))
        first.commit()
        assert worker.outcome() is None
    insert(admin, one, (1,))
    insert(admin, other, (1,))
    assert [change["table"] for change in told()] == [one[1], other[1]]


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("level", ["row", "statement"])
def test_a_stream_that_came_into_being_after_the_snapshot_gets_all_of_it(
    installed: str, admin: Admin, channel: str, isolation: str, level: Any
) -> None:
    orders = replace_table(admin, f"orders of {channel}", "id int PRIMARY KEY")
    triggers.install(admin, orders, to=triggers.stream(channel), level=level)
    registered = "SELECT count(*) FROM pgpubsub.stream WHERE name = %s"
    assert admin.execute(registered, [channel]).fetchone() == (1,)
    admin.execute("DELETE FROM pgpubsub.stream WHERE name = %s", [channel])  # as if the installer might not register it
    with psycopg.connect(installed, autocommit=True) as late:
        late.execute(f"BEGIN ISOLATION LEVEL {isolation}")
        late.execute(f"SELECT FROM {quoted(orders)}")
        insert(admin, orders, (1,))
        late.execute(f"INSERT INTO {quoted(orders)} SELECT generate_series(2, 6)")
        late.execute("COMMIT")
    query = "SELECT payload::json #>> '{key,id}' FROM pgpubsub.entry WHERE stream = pgpubsub.stream_id(%s) ORDER BY id"
    assert [key for (key,) in admin.execute(query, [channel])] == list("123456")
    assert failures_of(admin, orders) == [0]
