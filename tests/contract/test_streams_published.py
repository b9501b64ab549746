"""Streams and groups in a database all of whose tables are published, for logical replication."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import pgpubsub.contrib.channels
import pgpubsub.streams
from pgpubsub import BEGINNING
from tests.contract.groups import administer, info, process
from tests.contract.sending import words
from tests.contract.streams import KINDS, AnyStream, identifier, install

Admin = psycopg.Connection[Any]


@pytest.fixture(params=KINDS)
def hub_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def published(installed: str, admin: Admin) -> Iterator[str]:
    """A database all of whose tables are."""
    admin.execute("SET client_min_messages = error")  # which says that wal_level is not logical
    admin.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    yield installed
    admin.execute("DROP PUBLICATION everything")


def test_a_group_processes_and_goes_where_it_is_told(stream: AnyStream, published: str, admin: Admin) -> None:
    stream.append_many(words(3))
    found: list[str] = []

    def handler(entry: Any) -> None:
        found.append(entry.payload)
        assert len(found) > 1

    process(stream, "billing", handler, follow=False, backoff=0)
    administer(stream, "seek", "billing", BEGINNING)
    assert info(stream, "billing").lag == 3
    process(stream, "billing", handler, follow=False, attempts=1)
    assert sorted(found[1:]) == sorted([*words(3), *words(3)])
    administer(stream, "drop_group", "billing")
    pgpubsub.streams.create(admin, stream.name, max_entries=1)
    assert pgpubsub.streams.trim(admin, stream.name) == 2


def test_a_restore_is_repaired_also_where_an_older_version_was_installed(
    published: str, admin: Admin, channel: str
) -> None:
    install(published, channel)
    of = identifier(channel)
    pgpubsub.append(admin, "orders", "17", schema=channel)
    admin.execute(f"UPDATE {of}.birth SET born = (born::text::bigint - 1)::text::xid8")
    for table in ("slot", "birth"):
        admin.execute(f"ALTER TABLE {of}.{table} REPLICA IDENTITY DEFAULT")
    install(published, channel)
    assert admin.execute(f"SELECT count(*) FROM {of}.native_birth").fetchone() == (1,)
    admin.execute(f"DROP SCHEMA {of} CASCADE")


def test_an_identity_that_somebody_has_chosen_is_left(dsn: str, admin: Admin, channel: str) -> None:
    install(dsn, channel)
    of = identifier(channel)
    admin.execute(f"CREATE UNIQUE INDEX mine ON {of}.slot (consumer_group, slot)")
    admin.execute(f"ALTER TABLE {of}.slot REPLICA IDENTITY USING INDEX mine")
    install(dsn, channel)
    query = "SELECT relreplident FROM pg_class WHERE oid = %s::regclass"
    assert admin.execute(query, [f"{of}.slot"]).fetchone() == ("i",)
    admin.execute(f"DROP SCHEMA {of} CASCADE")


def test_every_table_that_is_published_can_be_written(dsn: str, admin: Admin, channel: str) -> None:
    """Those of a channel layer too. What is not logged is not published."""
    for make in (pgpubsub.streams.install, pgpubsub.contrib.channels.install):
        make(admin, channel)
        found = admin.execute(
            """
            SELECT relname FROM pg_class
             WHERE relnamespace = %s::regnamespace AND relkind = 'r' AND relpersistence = 'p' AND relreplident <> 'f'
               AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid AND indisprimary)
            """,
            [identifier(channel)],
        ).fetchall()
        assert found == []
        admin.execute(f"DROP SCHEMA {identifier(channel)} CASCADE")
