"""SQLAlchemy's tables tell of their changes, with every driver, whatever they are called, and leave nothing behind."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Column, Integer, MetaData, Table, Text, orm, text
from sqlalchemy.sql.elements import quoted_name

import pgpubsub
from pgpubsub import Channel, Hub, triggers
from pgpubsub.contrib.sqlalchemy import streams, trigger
from tests.contract.alchemy import Admin, Told, admin, database, engine, left_behind, order_table, run_ddl, told
from tests.contract.streams import identifier

__all__ = ["admin", "database", "engine", "told"]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_tables_are_made_with_their_triggers(
    database: str, driver: str, admin: Admin, channel: str, told: Told
) -> None:
    metadata = MetaData()
    streams(metadata)
    table = order_table(metadata)
    trigger(table, to=channel, columns=["state"], when="NEW.state <> ':word %s %(x)s' -- or so")
    trigger(table, to=triggers.stream("orders"), name="log")
    for _ in range(2):
        run_ddl(database, driver, metadata.create_all)
    admin.execute("INSERT INTO orders VALUES (1, 'open'), (2, ':word %s %(x)s')")
    assert [change["row"] for change in told()] == [{"state": "open"}]
    with Hub(database) as hub, hub.stream("orders").read(follow=False) as entries:
        assert [json.loads(entry.payload)["key"] for entry in entries if isinstance(entry, pgpubsub.Entry)] == [
            {"id": 1},
            {"id": 2},
        ]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_tables_are_dropped_with_all_that_belongs_to_their_triggers(database: str, driver: str, admin: Admin) -> None:
    metadata = MetaData()
    table = order_table(metadata)
    for name in (None, "a % of 'it'"):
        trigger(table, to="orders", name=name)
    run_ddl(database, driver, metadata.create_all)
    assert {one.name for one in triggers.installed(admin)} == {"pgpubsub", "a % of 'it'"}
    for _ in range(2):
        run_ddl(database, driver, metadata.drop_all)
    assert left_behind(admin) == []


def test_mapped_classes_tell(engine: sqlalchemy.Engine, admin: Admin, channel: str, told: Told) -> None:
    class Base(orm.DeclarativeBase):
        pass

    class Person(Base):
        __tablename__ = "person"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        kind: orm.Mapped[str]
        name: orm.Mapped[str] = orm.mapped_column("full name")
        friends: orm.Mapped[list[Any]] = orm.relationship("NotThereYet")
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012

    class Employee(Person):
        __tablename__ = "employee"
        id: orm.Mapped[int] = orm.mapped_column(sqlalchemy.ForeignKey("person.id"), primary_key=True)
        __mapper_args__ = {"polymorphic_identity": "employee"}  # noqa: RUF012

    trigger(Person, to=Channel(channel, dict), columns=["full name"])
    trigger(Employee, to=channel)
    Base.metadata.create_all(engine)
    admin.execute("INSERT INTO person VALUES (7, 'employee', 'Ada'); INSERT INTO employee VALUES (7)")
    assert [(change["table"], change["row"]) for change in told()] == [
        ("person", {"full name": "Ada"}),
        ("employee", {"id": 7}),
    ]


def test_a_session_that_is_bound_by_class_sends_in_its_transaction(
    engine: sqlalchemy.Engine, admin: Admin, channel: str, told: Told
) -> None:
    class Base(orm.DeclarativeBase):
        pass

    class Order(Base):
        __tablename__ = "orders"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)

    Base.metadata.create_all(engine)
    with orm.Session(binds={Order: engine}) as session:
        session.add(Order(id=1))
        pgpubsub.notify(session.connection(bind_arguments={"mapper": Order}), channel, '{"id": 1}')
        assert told() == []
        session.commit()
    assert told() == [{"id": 1}]
    assert admin.execute("SELECT id FROM orders").fetchall() == [(1,)]


@pytest.mark.parametrize("name", ["Mixed", "100% %s :name", 'a "quoted" one', "select", "日本語", "$pgpubsub$"])
def test_any_names_will_do(engine: sqlalchemy.Engine, admin: Admin, channel: str, told: Told, name: str) -> None:
    metadata = MetaData(schema=name)
    column = f"{name} 2".replace("%", "").replace(":", "")  # which SQLAlchemy's parameters cannot have in their names
    table = Table(name, metadata, Column("id", Integer, primary_key=True), Column(column, Text))
    trigger(table, to=channel, columns=[column])
    admin.execute(f"CREATE SCHEMA {identifier(name)}")
    metadata.create_all(engine)
    admin.execute(f"INSERT INTO {identifier(name)}.{identifier(name)} VALUES (1, 'x')")
    assert [(change["schema"], change["table"], change["row"]) for change in told()] == [(name, name, {column: "x"})]
    metadata.drop_all(engine)
    assert left_behind(admin) == []


def test_a_name_that_is_not_to_be_quoted_is_what_the_server_makes_of_it(
    engine: sqlalchemy.Engine, admin: Admin
) -> None:
    metadata = MetaData()
    trigger(order_table(metadata, quoted_name("Orders", False)), to="orders")
    metadata.create_all(engine)
    assert [one.table for one in triggers.installed(admin)] == [("public", "orders")]
    metadata.drop_all(engine, checkfirst=False)  # SQLAlchemy itself would look for "Orders"
    assert left_behind(admin) == []


def test_schemas_are_translated(engine: sqlalchemy.Engine, admin: Admin) -> None:
    metadata = MetaData()
    trigger(order_table(metadata), to="orders")
    trigger(order_table(metadata, schema="theirs"), to="orders")
    admin.execute("CREATE SCHEMA tenant; CREATE SCHEMA other")
    translated = engine.execution_options(schema_translate_map={None: "tenant", "theirs": "other"})
    metadata.create_all(translated)
    assert [one.table for one in triggers.installed(admin)] == [("other", "orders"), ("tenant", "orders")]
    metadata.drop_all(translated)
    assert left_behind(admin) == []


def test_without_a_schema_it_is_the_one_that_tables_are_made_in(engine: sqlalchemy.Engine, admin: Admin) -> None:
    metadata = MetaData()
    trigger(order_table(metadata), to="orders")
    admin.execute("CREATE SCHEMA tenant; CREATE TABLE public.orders (id int)")
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL search_path = tenant, public"))
        metadata.create_all(connection, checkfirst=False)
    assert [one.table for one in triggers.installed(admin)] == [("tenant", "orders")]


def test_partitions_are_told_as_the_table_that_they_belong_to(
    engine: sqlalchemy.Engine, admin: Admin, channel: str, told: Told
) -> None:
    metadata = MetaData()
    table = order_table(metadata, postgresql_partition_by="LIST (id)")
    trigger(table, to=channel)
    metadata.create_all(engine)
    admin.execute("CREATE TABLE first PARTITION OF orders FOR VALUES IN (1)")
    admin.execute("INSERT INTO orders VALUES (1)")
    assert [(change["table"], change["key"]) for change in told()] == [("orders", {"id": 1})]
    metadata.drop_all(engine)
    assert left_behind(admin) == []


def test_copies_of_a_table_tell_as_well(engine: sqlalchemy.Engine, admin: Admin) -> None:
    table = order_table(MetaData())
    trigger(table, to="orders")
    metadata = MetaData(schema="theirs")
    copy = table.to_metadata(metadata, schema="theirs")
    trigger(copy, to="of the copy", name="own")
    admin.execute("CREATE SCHEMA theirs")
    metadata.create_all(engine)
    assert {(one.table, one.to) for one in triggers.installed(admin)} == {
        (("theirs", "orders"), "orders"),
        (("theirs", "orders"), "of the copy"),
    }
    table.create(engine)
    assert [one.to for one in triggers.installed(admin) if one.table[0] == "public"] == ["orders"]
    metadata.drop_all(engine)
    table.drop(engine)
    assert left_behind(admin) == []


def test_every_option_is_taken(engine: sqlalchemy.Engine, admin: Admin) -> None:
    metadata = MetaData()
    streams(metadata, "events")
    table = order_table(metadata)
    trigger(
        table,
        to=triggers.stream("orders", "events"),
        on=["delete", "update"],
        columns=("state", "note"),
        old=True,
        when="OLD.id > 0",
        level="statement",
        name="all",
        definer=True,
    )
    trigger(table, to="orders", key_only=True, on="truncate")  # type: ignore[arg-type]
    metadata.create_all(engine)
    first, second = sorted(triggers.installed(admin), key=lambda one: one.name)
    assert first == triggers.Trigger(
        table=("public", "orders"),
        name="all",
        to=triggers.stream("orders", "events"),
        on=("update", "delete"),
        columns=("note", "state"),
        key_only=False,
        old=True,
        when="OLD.id > 0",
        level="statement",
        definer=True,
        failures=0,
    )
    assert (second.key_only, second.on) == (True, ("truncate",))


def test_entries_outlive_the_tables(engine: sqlalchemy.Engine, admin: Admin) -> None:
    metadata = MetaData()
    table = order_table(metadata)
    trigger(table, to=triggers.stream("orders"))
    streams(metadata)
    metadata.create_all(engine)
    with orm.Session(engine) as session:
        session.execute(sqlalchemy.insert(table).values(id=1))
        pgpubsub.append(session, "orders", "17")
        session.commit()
    metadata.drop_all(engine)
    metadata.create_all(engine)
    assert admin.execute("SELECT count(*) FROM pgpubsub.entry").fetchone() == (2,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": 17}, "to is a channel's name"),
        ({"to": "a", "on": ["upsert"]}, "on has some of"),
        ({"to": "a", "columns": ["stat"]}, "orders has no column stat; it has id, note, state"),
        ({"to": "a", "columns": "state"}, "columns is several names"),
        ({"to": "a", "key_only": True, "old": True}, "choose one of them"),
        ({"to": "a", "name": "x" * 41}, "the limit is 40"),
        ({"to": "other"}, "orders has a trigger 'pgpubsub' already: give this one another name"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_declared(options: Any, message: str) -> None:
    table = order_table(MetaData())
    trigger(table, to="orders")
    with pytest.raises((TypeError, ValueError), match=message):
        trigger(table, **options)
    trigger(table, to="orders")  # the same once more is no other


def test_what_is_no_table_is_refused() -> None:
    class Plain:
        pass

    for thing in (Plain, "orders", MetaData(), sqlalchemy.select(1).subquery()):
        with pytest.raises(TypeError, match="table is a Table, or a class that is mapped to one, not"):
            trigger(thing, to="orders")
    with pytest.raises(TypeError, match=r"metadata is a MetaData, such as Base.metadata, not"):
        streams(Plain)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="schema"):
        streams(MetaData(), "")
