"""What SQLAlchemy's tables declare, where there is no connection or no PostgreSQL; and a hub beside an engine."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import MetaData, orm
from sqlalchemy.ext.asyncio import create_async_engine

import pgpubsub
from pgpubsub import AsyncHub, Hub, triggers
from pgpubsub.contrib.sqlalchemy import conninfo, streams, trigger
from pgpubsub.errors import ConninfoError
from tests.contract.alchemy import Admin, Told, admin, database, engine, order_table, told, url_of
from tests.contract.faces import PATIENCE

__all__ = ["admin", "database", "engine", "told"]


# -- without PostgreSQL


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_a_mock_engine_sees_statements_that_can_be_run(admin: Admin, channel: str, told: Told, driver: str) -> None:
    metadata = MetaData()
    streams(metadata)
    table = order_table(metadata)
    trigger(table, to=channel, when="NEW.state <> '100% :x'")
    script: list[str] = []

    def dump(statement: Any, *_: Any) -> None:
        script.append(f"{statement.compile(dialect=mock.dialect)};")

    mock = sqlalchemy.create_mock_engine(f"postgresql+{driver}://", dump)
    metadata.create_all(mock, checkfirst=False)
    admin.execute("\n".join(script))
    admin.execute("INSERT INTO orders VALUES (1, 'open'), (2, '100% :x')")
    assert [change["key"] for change in told()] == [{"id": 1}]
    script.clear()
    metadata.drop_all(mock, checkfirst=False)
    admin.execute("\n".join(script))
    assert [one.table for one in triggers.installed(admin)] == []


def test_other_databases_take_no_notice() -> None:
    metadata = MetaData()
    streams(metadata)
    trigger(order_table(metadata), to="orders")
    engine = sqlalchemy.create_engine("sqlite://")
    metadata.create_all(engine)
    assert sqlalchemy.inspect(engine).get_table_names() == ["orders"]
    metadata.drop_all(engine)
    engine.dispose()


@pytest.mark.parametrize("name", ["sqlalchemy", "alembic"])
def test_the_extra_is_named_where_it_is_missing(name: str) -> None:
    program = f"import sys; sys.modules[{name!r}] = None; import pgpubsub.contrib.{name}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert f"pip install 'pgpubsub[binary,{name}]'" in done.stderr


# -- a hub beside an engine


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://", {}),
        (
            "postgresql+psycopg2://me:p%40ss%20%27word%5C@db/shop?application_name=a%20b&client_encoding=utf8",
            {
                "user": "me",
                "password": "p@ss 'word\\",
                "host": "db",
                "dbname": "shop",
                "application_name": "a b",
                "client_encoding": "utf8",
            },
        ),
        ("postgresql+psycopg://me@/shop?host=/var/run/pg", {"user": "me", "dbname": "shop", "host": "/var/run/pg"}),
        ("postgresql+psycopg://me@[::1]:6432/shop", {"user": "me", "dbname": "shop", "host": "::1", "port": "6432"}),
        ("postgresql+asyncpg:///shop?host=a:1&host=b:2", {"dbname": "shop", "host": "a,b", "port": "1,2"}),
        (
            "postgresql+asyncpg://db/shop?ssl=verify-full&command_timeout=5&prepared_statement_cache_size=0",
            {"dbname": "shop", "host": "db", "sslmode": "verify-full"},
        ),
    ],
)
def test_the_connection_string_says_what_the_url_says(url: str, expected: dict[str, str]) -> None:
    assert conninfo_to_dict(conninfo(url)) == expected
    assert conninfo_to_dict(conninfo(sqlalchemy.make_url(url), dbname="other", keepalives_idle=5)) == {
        **expected,
        "dbname": "other",
        "keepalives_idle": "5",
    }


def test_what_leads_elsewhere_has_no_connection_string() -> None:
    with pytest.raises(ConninfoError, match="leads to sqlite and not to PostgreSQL"):
        conninfo("sqlite://")
    with pytest.raises(ConninfoError, match="libpq does not take a parameter: .*sslmod"):
        conninfo("postgresql://", sslmod="require")
    with pytest.raises(ConninfoError) as error:
        conninfo("mysql://me:secret@db")
    assert "secret" not in str(error.value)


def test_a_hub_goes_where_the_engine_does(engine: sqlalchemy.Engine, database: str, channel: str) -> None:
    with Hub(conninfo(engine)) as hub, hub.subscribe(channel) as events, orm.Session(engine) as session:
        pgpubsub.notify(session, channel, "hello")
        session.commit()
        event = events.get(PATIENCE)
        assert isinstance(event, pgpubsub.Notify)
        assert event.payload == "hello"

    async def listen() -> Any:
        other = create_async_engine(url_of(database, "asyncpg"))
        try:
            async with AsyncHub(conninfo(other)) as hub, hub.subscribe(channel) as events:
                async with other.begin() as connection:
                    await pgpubsub.notify_async(connection, channel, "hello")
                return await events.get(PATIENCE)
        finally:
            await other.dispose()

    assert asyncio.run(listen()).payload == "hello"
