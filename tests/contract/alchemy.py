"""What the tests of SQLAlchemy and Alembic share: a database of one's own, and a table of orders."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Column, Integer, MetaData, Table, Text
from sqlalchemy.ext.asyncio import create_async_engine

import pgpubsub
from tests.contract.faces import PATIENCE
from tests.contract.streams import identifier

__all__ = ["Admin", "Told", "admin", "database", "engine", "left_behind", "order_table", "run_ddl", "told", "url_of"]

Admin = psycopg.Connection[Any]
Told = Callable[[], list[dict[str, Any]]]


def url_of(dsn: str, driver: str) -> sqlalchemy.URL:
    part: dict[str, Any] = conninfo_to_dict(dsn)
    return sqlalchemy.URL.create(
        f"postgresql+{driver}", part.get("user"), part.get("password"), part["host"], part["port"], part["dbname"]
    )


@pytest.fixture
def database(dsn: str, channel: str) -> Iterator[str]:
    """A database of one's own."""
    name = f"of {channel}"
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {identifier(name)}")
        yield make_conninfo(dsn, dbname=name)
        admin.execute(f"DROP DATABASE {identifier(name)} WITH (FORCE)")


@pytest.fixture
def admin(database: str) -> Iterator[Admin]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def engine(database: str) -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine(url_of(database, "psycopg"))
    yield engine
    engine.dispose()


@pytest.fixture
def told(database: str, channel: str) -> Iterator[Told]:
    """Returns what has been told on the channel since it was asked last."""
    with pgpubsub.connect(database) as pubsub:
        pubsub.listen(channel)

        def get() -> list[dict[str, Any]]:
            pubsub.notify(channel, "that is all")
            found = []
            while (event := pubsub.get_event(PATIENCE)) is not None and event.payload != "that is all":
                found.append(json.loads(event.payload))
            return found

        yield get


def order_table(metadata: MetaData, name: str = "orders", **keywords: Any) -> Table:
    columns = Column("id", Integer, primary_key=True), Column("state", Text), Column("note", Text)
    return Table(name, metadata, *columns, **keywords)


def left_behind(admin: Admin) -> list[str]:
    """The functions and sequences that there are."""
    rows = admin.execute(
        "SELECT proname FROM pg_proc WHERE pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname !~ '^(pg_|inf)')"
        " UNION ALL SELECT relname FROM pg_class WHERE relkind = 'S'"
    )
    return [str(name) for (name,) in rows]


def run_ddl(database: str, driver: str, ddl: Callable[[Any], None]) -> None:
    """Run `create_all` or `drop_all` as one does with the driver."""
    if driver == "asyncpg":
        asyncio.run(run_ddl_async(database, ddl))
        return
    engine = sqlalchemy.create_engine(url_of(database, driver))
    try:
        ddl(engine)
    finally:
        engine.dispose()


async def run_ddl_async(database: str, ddl: Callable[[Any], None]) -> None:
    engine = create_async_engine(url_of(database, "asyncpg"))
    try:
        async with engine.begin() as connection:
            await connection.run_sync(ddl)
    finally:
        await engine.dispose()
