"""What Django projects are given: sending in its transactions, hubs for its databases, operations for migrations."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Coroutine, Iterator
from typing import Any

import django.db
import psycopg
import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, migrations, models, transaction
from django.db.migrations.state import ProjectState
from django.db.migrations.writer import MigrationWriter
from django.test import override_settings

import pgpubsub
from pgpubsub import triggers
from pgpubsub.contrib.channels.operations import InstallChannelLayer
from pgpubsub.contrib.django import aappend, anotify, append, async_hub, close_hubs, conninfo, hub, notify
from pgpubsub.contrib.django.operations import DropTrigger, InstallStreams, InstallTrigger
from tests.contract.faces import PATIENCE
from tests.contract.owners import use_django
from tests.contract.streams import identifier

pytestmark = pytest.mark.usefixtures("_settings")


@pytest.fixture
def _settings(dsn: str) -> Iterator[None]:
    use_django(dsn)
    with psycopg.connect(dsn) as conn:
        pgpubsub.streams.install(conn)
    yield
    close_hubs()
    connections.close_all()


# -- in its transactions


def test_notify_goes_out_with_the_commit_or_never(dsn: str, channel: str) -> None:
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(channel)
        with transaction.atomic():
            notify(channel, "committed")
            with transaction.atomic():
                notify(channel, "rolled back")
                transaction.set_rollback(True)
            assert pubsub.get_event() is None
        notify(channel, "at once")
        notify(pgpubsub.Channel(channel, dict[str, int]), {"typed": 1})
        received = [pubsub.get_event(PATIENCE) for _ in range(3)]
    assert [event and event.payload for event in received] == ["committed", "at once", '{"typed":1}']


def test_append_joins_the_transaction(channel: str) -> None:
    with hub().stream(channel).read(after=pgpubsub.END) as entries:
        with transaction.atomic():
            append(channel, "rolled back")
            transaction.set_rollback(True)
        with transaction.atomic():
            id = append(channel, "committed", key="k", headers={"a": 1})
        entry = entries.get(PATIENCE)
    assert isinstance(entry, pgpubsub.Entry)
    assert (entry.id, entry.payload, entry.key, entry.headers) == (id, "committed", "k", {"a": 1})


def test_asynchronous_code_may_do_both(channel: str) -> None:
    async def main() -> list[Any]:
        target = async_hub()
        async with target.subscribe(channel) as events, target.stream(channel).read(after=pgpubsub.END) as entries:
            await anotify(channel, "17")
            id = await aappend(channel, "18", idempotency_key="once")
            assert await aappend(channel, "18", idempotency_key="once") == id
            return [await events.get(PATIENCE), await entries.get(PATIENCE)]

    assert [event.payload for event in asyncio.run(main())] == ["17", "18"]


def test_another_alias_is_another_database(channel: str) -> None:
    for call in (lambda: notify(channel, using="other"), lambda: append(channel, "x", using="other")):
        with pytest.raises(pgpubsub.UnsupportedConnection, match="sqlite and not to PostgreSQL"):
            call()
    with pytest.raises(django.db.utils.ConnectionDoesNotExist):
        notify(channel, using="nowhere")


# -- hubs


def test_a_process_has_one_hub_for_each_alias() -> None:
    assert hub() is hub()
    first = hub()
    close_hubs()
    assert hub() is not first
    with pytest.raises(pgpubsub.Closed):
        first.notify("x")


def test_an_alias_that_cannot_be_listened_to_is_refused_at_once() -> None:
    with pytest.raises(ImproperlyConfigured, match="'other' is sqlite and not PostgreSQL"):
        hub("other")
    with pytest.raises(django.db.utils.ConnectionDoesNotExist):
        hub("nowhere")


def test_the_connection_string_is_djangos(dsn: str) -> None:
    given = psycopg.conninfo.conninfo_to_dict(conninfo())
    assert given.items() <= psycopg.conninfo.conninfo_to_dict(dsn).items() | given.items()
    with psycopg.connect(conninfo()) as conn, connections["default"].cursor() as cursor:
        cursor.execute("SELECT current_database(), current_user")
        assert conn.execute("SELECT current_database(), current_user").fetchone() == cursor.fetchone()


def test_settings_have_what_a_hub_is_to_be_given(admin: psycopg.Connection[Any], channel: str) -> None:
    name = f"of settings {os.getpid()}"
    with override_settings(PGPUBSUB={"default": {"application_name": name, "max_payload": 10}}):
        close_hubs()
        with hub().subscribe(channel):
            rows = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [name]).fetchone()
            assert rows is not None
            assert rows[0] >= 1
        with pytest.raises(pgpubsub.PayloadTooLarge):
            hub().notify(channel, "x" * 11)
    with override_settings(PGPUBSUB={"default": {"nonsense": 1}}):
        close_hubs()
        with pytest.raises(pgpubsub.ConninfoError, match="nonsense"):
            hub()


def test_each_event_loop_has_a_hub_that_is_closed_with_it(admin: psycopg.Connection[Any], channel: str) -> None:
    name = f"of loops {os.getpid()}"

    def listening() -> int:
        row = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND query LIKE '%%LISTEN%%'", [name]
        ).fetchone()
        assert row is not None
        return int(row[0])

    def in_synchronous_code(view: Coroutine[Any, Any, str]) -> str:
        async def call() -> str:
            return await view

        return str(async_to_sync(call)())

    async def view() -> str:
        assert async_hub() is async_hub()
        async with async_hub().subscribe(channel) as events:
            assert listening() == 1
            await async_hub().notify(channel, "17")
            event = await events.get(PATIENCE)
            assert isinstance(event, pgpubsub.Notify)
            return event.payload

    with override_settings(PGPUBSUB={"default": {"application_name": name}}):
        for run in (asyncio.run, in_synchronous_code):
            assert run(view()) == "17"
            gc.collect()
            while listening():
                pass
    with pytest.raises(RuntimeError, match="no running event loop"):
        async_hub()


def test_a_database_can_be_dropped_while_an_event_loop_has_a_hub_for_it(channel: str) -> None:
    """As Django does with test databases, beside a server in a thread. It has its own connection for that."""

    async def main() -> None:
        async with async_hub().subscribe(channel) as events:

            def drop() -> None:
                with connections["default"]._nodb_cursor() as cursor:
                    cursor.execute("SELECT 1")

            first = async_hub()
            await asyncio.to_thread(drop)
            assert [event async for event in events] == []
            assert async_hub() is not first

    asyncio.run(main())


def test_a_connection_string_in_the_settings_is_for_hubs_and_the_channel_layer(channel: str) -> None:
    with override_settings(PGPUBSUB={"default": {"application_name": "direct", "heartbeat": 5.0}}):
        assert "application_name=direct" in conninfo()
        close_hubs()
        hub().notify(channel)


# -- migrations


class Migrated:
    """A model whose table is there, and what happens to it in migrations."""

    def __init__(self, table: str) -> None:
        self.table = table
        self.state = ProjectState()
        create = migrations.CreateModel(
            "Order",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("state", models.CharField(max_length=20, db_column="The State")),
                ("customer", models.IntegerField(default=0)),
            ],
            {"db_table": table},
        )
        create.state_forwards("shop", self.state)
        with connections["default"].schema_editor() as editor:
            create.database_forwards("shop", editor, ProjectState(), self.state)

    def forwards(self, operation: Any) -> None:
        operation.state_forwards("shop", self.state)
        with connections["default"].schema_editor() as editor:
            operation.database_forwards("shop", editor, self.state, self.state)

    def backwards(self, operation: Any) -> None:
        with connections["default"].schema_editor() as editor:
            operation.database_backwards("shop", editor, self.state, self.state)

    @property
    def triggers(self) -> dict[str, triggers.Trigger]:
        return {one.name: one for one in triggers.installed(connections["default"]) if one.table[1] == self.table}


@pytest.fixture(params=["Shop Order", "it's odd"])
def migrated(request: pytest.FixtureRequest, admin: psycopg.Connection[Any]) -> Iterator[Migrated]:
    one = Migrated(request.param)
    yield one
    for name in one.triggers:
        triggers.drop(connections["default"], ("public", one.table), name)
    admin.execute(f"DROP TABLE {identifier(one.table)}".encode())


def test_a_migration_installs_and_undoing_it_drops(migrated: Migrated, channel: str, dsn: str) -> None:
    operation = InstallTrigger("Order", to=channel, columns=["state"])
    migrated.forwards(operation)
    migrated.forwards(operation)
    assert migrated.triggers["pgpubsub"].columns == ("The State",)
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(channel)
        model = migrated.state.apps.get_model("shop", "Order")
        with transaction.atomic():
            order = model.objects.create(state="new")
        model.objects.filter(pk=order.pk).update(customer=5)
        model.objects.filter(pk=order.pk).update(state="paid")
        received = [pubsub.get_event(PATIENCE) for _ in range(2)]
        assert [event and event.payload[:12] for event in received] == ['{"op":"inser', '{"op":"updat']
    migrated.backwards(operation)
    assert not migrated.triggers


def test_undoing_a_replacement_restores_what_was_there(migrated: Migrated) -> None:
    first = InstallTrigger("order", to="one")
    second = InstallTrigger("order", to=triggers.stream("two"), old=True, replaces=first)
    drop = DropTrigger("order", was=second)
    for operation in (InstallStreams(), first, second):
        migrated.forwards(operation)
    assert str(migrated.triggers["pgpubsub"].to) == "ToStream(name='two', schema='pgpubsub')"
    migrated.forwards(drop)
    assert not migrated.triggers
    migrated.backwards(drop)
    assert migrated.triggers["pgpubsub"].old
    migrated.backwards(second)
    assert migrated.triggers["pgpubsub"].to == "one"
    assert drop.reversible
    assert not DropTrigger("order").reversible


def test_a_table_that_django_does_not_make_is_told_of_too(migrated: Migrated) -> None:
    options = migrated.state.models["shop", "order"].options
    options["managed"] = False
    migrated.state.reload_model("shop", "order")
    migrated.forwards(InstallTrigger("order", to="x"))
    assert migrated.triggers


def test_bad_options_are_told_when_the_migration_is_read() -> None:
    with pytest.raises(ValueError, match="level is"):
        InstallTrigger("order", to="orders", level="table")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="columns is several names"):
        InstallTrigger("order", to="orders", columns="state")
    with pytest.raises(TypeError, match="to is a channel"):
        InstallTrigger("order", to=None)
    with pytest.raises(ValueError, match="name has"):
        DropTrigger("order", "x" * 41)
    with pytest.raises(ValueError, match="schema"):
        InstallStreams("")


def test_nothing_is_done_where_there_is_no_postgresql(migrated: Migrated) -> None:
    for operation in (InstallTrigger("order", to="x"), DropTrigger("order"), InstallStreams(), InstallChannelLayer()):
        with connections["other"].schema_editor() as editor:
            operation.database_forwards("shop", editor, migrated.state, migrated.state)


class Nowhere:
    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return False


def test_routers_are_asked(migrated: Migrated) -> None:
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.Nowhere"]):
        migrated.forwards(InstallTrigger("order", to="x"))
        migrated.forwards(InstallStreams("never made"))
    assert not migrated.triggers
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT to_regnamespace('\"never made\"')")
        assert cursor.fetchone() == (None,)


def test_operations_can_be_written_as_migrations_are_squashed() -> None:
    first = InstallTrigger("order", to=pgpubsub.Channel("one", int), columns={"state"})
    written: list[Any] = [
        InstallStreams("elsewhere"),
        first,
        InstallTrigger("order", to=triggers.stream("two", "elsewhere"), name="x", replaces=first),
        DropTrigger("order", "x", was=first),
        InstallChannelLayer(),
    ]
    migration = type("Migration", (migrations.Migration,), {"operations": written, "dependencies": []})
    text = MigrationWriter(migration("0002_more", "shop")).as_string()
    namespace: dict[str, Any] = {}
    exec(text, namespace)
    again = namespace["Migration"].operations
    assert [one.describe() for one in again] == [one.describe() for one in written]
    assert again[2].options == written[2].options
    assert again[2].replaces.options["to"] == "one"
    assert len({one.migration_name_fragment for one in written}) == 5
