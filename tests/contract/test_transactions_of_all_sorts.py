"""Connections that are unusual, and things that are no connections, given to `notify` and `notify_async`."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import asyncpg
import django.core.cache
import django.db
import psycopg
import psycopg.rows
import psycopg2
import psycopg2.extras
import psycopg2.pool
import psycopg_pool
import pytest
import sqlalchemy
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sqlalchemy_async

import pgpubsub
from pgpubsub import UnsupportedConnection
from tests.contract.conftest import connect_with
from tests.contract.owners import OWNERS, async_engine_of, connected, engine_of, use_django
from tests.contract.test_transactions import Heard, heard

__all__ = ["heard"]

LONG = "x" * 10_000


def send_both(conn: Any, channel: str) -> None:
    pgpubsub.notify(conn, channel, "17")
    pgpubsub.notify(conn, channel, LONG)


# -- connections that are set up in an unusual way


def test_in_a_pipeline(dsn: str, channel: str, heard: Heard) -> None:
    with psycopg.connect(dsn) as conn, conn.pipeline():
        send_both(conn, channel)
        conn.execute("SELECT 1")
        assert heard() == []
    assert heard() == ["17", LONG]


async def send_in_a_pipeline(dsn: str, channel: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as conn, conn.pipeline():
        await pgpubsub.notify_async(conn, channel, "17")
        await pgpubsub.notify_async(conn, channel, LONG)


def test_in_an_asynchronous_pipeline(dsn: str, channel: str, heard: Heard) -> None:
    asyncio.run(send_in_a_pipeline(dsn, channel))
    assert heard() == ["17", LONG]


def no_row(cursor: Any) -> Any:
    raise AssertionError("nobody asked for rows")


@pytest.mark.parametrize(
    "keywords",
    [
        {"cursor_factory": psycopg.ClientCursor},
        {"cursor_factory": psycopg.RawCursor},
        {"row_factory": psycopg.rows.dict_row},
        {"row_factory": no_row},
        {"prepare_threshold": None},
        {"prepare_threshold": 0},
    ],
)
def test_with_other_cursors_and_rows(dsn: str, keywords: dict[str, Any], channel: str, heard: Heard) -> None:
    with psycopg.connect(dsn, **keywords) as conn:
        send_both(conn, channel)
    assert heard() == ["17", LONG]


@pytest.mark.parametrize(
    "factory", ["DictCursor", "RealDictCursor", "NamedTupleCursor", "LoggingConnection", "MinTimeLoggingConnection"]
)
def test_with_the_extras_of_psycopg2(dsn: str, factory: str, channel: str, heard: Heard) -> None:
    keyword = "cursor_factory" if factory.endswith("Cursor") else "connection_factory"
    conn: Any = psycopg2.connect(dsn, **{keyword: getattr(psycopg2.extras, factory)})
    if keyword == "connection_factory":
        conn.initialize(logging.getLogger("tests"))
    send_both(conn, channel)
    assert heard() == []
    conn.commit()
    assert heard() == ["17", LONG]
    conn.close()


@pytest.mark.parametrize("options", [{"stream_results": True}, {"yield_per": 10}])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_where_results_are_streamed(dsn: str, driver: str, options: dict[str, Any], channel: str, heard: Heard) -> None:
    engine = engine_of(driver, dsn, autocommit=False)
    with engine.connect().execution_options(**options) as conn, conn.begin():
        send_both(conn, channel)
    assert heard() == ["17", LONG]


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_where_asynchronous_results_are_streamed(dsn: str, driver: str, channel: str, heard: Heard) -> None:
    async def main() -> None:
        engine = async_engine_of(driver, dsn, autocommit=False)
        async with engine.connect() as conn, conn.begin():
            await conn.execution_options(stream_results=True)
            await pgpubsub.notify_async(conn, channel, "17")
        await engine.dispose()

    asyncio.run(main())
    assert heard() == ["17"]


def test_in_a_blocking_part_of_an_asynchronous_session(dsn: str, channel: str, heard: Heard) -> None:
    async def main() -> None:
        engine = async_engine_of("asyncpg", dsn, autocommit=False)
        async with sqlalchemy_async.AsyncSession(engine) as session, session.begin():
            await session.run_sync(pgpubsub.notify, channel, "17")
        await engine.dispose()

    asyncio.run(main())
    assert heard() == ["17"]


class Traced:
    """As tracing libraries wrap connections."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self.conn.__class__

    def __getattr__(self, name: str) -> Any:
        return getattr(self.conn, name)


@pytest.mark.parametrize("connect", [psycopg.connect, psycopg2.connect])
def test_behind_a_proxy(connect: Callable[..., Any], dsn: str, channel: str, heard: Heard) -> None:
    conn = connect(dsn)
    send_both(Traced(conn), channel)
    conn.commit()
    assert heard() == ["17", LONG]
    conn.close()


def test_what_an_encoding_cannot_express_is_an_error_of_the_driver(dsn: str, channel: str, heard: Heard) -> None:
    with psycopg.connect(dsn, client_encoding="latin1") as conn:
        pgpubsub.notify(conn, channel, "é")
        with pytest.raises(UnicodeEncodeError):
            pgpubsub.notify(conn, channel, "\U0001f418")
    assert heard() == ["é"]


@pytest.mark.parametrize("limit", [0, -1, None, "1"])
def test_the_limit_is_a_number_of_bytes(dsn: str, limit: Any) -> None:
    with psycopg.connect(dsn) as conn, pytest.raises((ValueError, TypeError), match="max_payload"):
        pgpubsub.notify(conn, "channel", max_payload=limit)


# -- what is no connection, or none of the right sort


@pytest.mark.parametrize("kind", OWNERS)
def test_blocking_and_asynchronous_connections_are_told_apart(kind: str, dsn: str) -> None:
    with connected(kind, dsn) as owner:
        if "async" in kind.lower():
            with pytest.raises(UnsupportedConnection, match="it is asynchronous: use await pgpubsub.notify_async()"):
                pgpubsub.notify(owner.conn, "channel")
        else:
            with pytest.raises(UnsupportedConnection, match="it would block the event loop: use pgpubsub.notify()"):
                asyncio.run(pgpubsub.notify_async(owner.conn, "channel"))


@pytest.mark.parametrize("kind", ["pg.DB", "pg.Connection"])
def test_a_closed_connection_of_pygresql_is_an_error_of_the_driver(dsn: str, kind: str) -> None:
    pg = pytest.importorskip("pg")
    conn = connect_with(kind, dsn)
    conn.close()
    with pytest.raises((pg.Error, TypeError), match="^Connection (already closed|is not valid)$"):
        pgpubsub.notify(conn, "channel")


async def asynchronous_pools(dsn: str) -> tuple[Any, Any]:
    return psycopg_pool.AsyncConnectionPool(dsn, open=False), asyncpg.create_pool()


def django_connection(dsn: str) -> Any:
    use_django(dsn)
    return django.db.connections["default"]


class OurHub(pgpubsub.Hub):
    """Somebody's own."""


CONNECTED = "it has a connection of its own: call its own notify()"
POOL = "take a connection out of it, and pass that"

UNSUPPORTED: dict[str, tuple[Callable[[str, Callable[[Any], Any]], Any], str]] = {
    "a DSN": (lambda dsn, _: dsn, "builtins.str: a string is no connection; to send outside of any transaction"),
    "None": (lambda dsn, _: None, "builtins.NoneType: bring the connection of psycopg 3, psycopg2, PyGreSQL"),
    "PubSub": (lambda dsn, closed: closed(pgpubsub.connect(dsn)), CONNECTED),
    "Hub": (lambda dsn, _: pgpubsub.Hub(dsn), CONNECTED),
    "OurHub": (lambda dsn, _: OurHub(dsn), CONNECTED),
    "AsyncHub": (lambda dsn, _: pgpubsub.AsyncHub(dsn), CONNECTED),
    "Engine": (lambda dsn, _: engine_of("psycopg", dsn, False), "open a connection or a session of it"),
    "AsyncEngine": (lambda dsn, _: async_engine_of("psycopg", dsn, False), "open a connection or a session of it"),
    "sessionmaker": (lambda dsn, _: orm.sessionmaker(), "make a session with it, and pass that"),
    "async_sessionmaker": (lambda dsn, _: sqlalchemy_async.async_sessionmaker(), "make a session with it"),
    "_ConnectionFairy": (
        lambda dsn, closed: closed(engine_of("psycopg", dsn, False).raw_connection()),
        "pass SQLAlchemy's connection or session, or this one's driver_connection",
    ),
    "ConnectionPool": (lambda dsn, _: psycopg_pool.ConnectionPool(dsn, open=False), POOL),
    "AsyncConnectionPool": (lambda dsn, _: asyncio.run(asynchronous_pools(dsn))[0], POOL),
    "asyncpg.pool.Pool": (lambda dsn, _: asyncio.run(asynchronous_pools(dsn))[1], POOL),
    "ThreadedConnectionPool": (lambda dsn, _: psycopg2.pool.ThreadedConnectionPool(0, 1, dsn), POOL),
    "psycopg.Cursor": (lambda dsn, closed: closed(psycopg.connect(dsn)).cursor(), "pass its connection"),
    "CursorWrapper": (lambda dsn, closed: closed(django_connection(dsn)).cursor(), "pass its connection"),
    "psycopg2.extensions.cursor": (lambda dsn, closed: closed(psycopg2.connect(dsn)).cursor(), "pass its connection"),
}


@pytest.fixture
def closed() -> Iterator[Callable[[Any], Any]]:
    """What is to be closed in the end."""
    with ExitStack() as stack:
        yield lambda thing: stack.enter_context(closing(thing))


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_it_says_what_to_bring_instead(dsn: str, closed: Callable[[Any], Any], name: str) -> None:
    make, advice = UNSUPPORTED[name]
    thing = make(dsn, closed)
    words = re.escape(advice)
    with pytest.raises(UnsupportedConnection, match=f"cannot send on .*{words}"):
        pgpubsub.notify(thing, "channel")
    with pytest.raises(UnsupportedConnection, match=f"cannot send on .*{words}"):
        asyncio.run(pgpubsub.notify_async(thing, "channel"))


def test_it_has_to_lead_to_postgresql(dsn: str, closed: Callable[[Any], Any]) -> None:
    use_django(dsn)
    engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.NullPool)
    for conn in (closed(engine.connect()), closed(orm.Session(engine)), closed(django.db.connections["other"])):
        with pytest.raises(UnsupportedConnection, match="it leads to sqlite and not to PostgreSQL"):
            pgpubsub.notify(conn, "channel")
    with pytest.raises(UnsupportedConnection, match="ConnectionProxy: it leads to no database"):
        pgpubsub.notify(django.core.cache.cache, "channel")


def test_an_asynchronous_connection_of_psycopg2_is_refused(dsn: str, closed: Callable[[Any], Any]) -> None:
    conn = closed(psycopg2.connect(dsn, async_=1))
    with pytest.raises(UnsupportedConnection, match="psycopg2's asynchronous connections have no transactions"):
        pgpubsub.notify(conn, "channel")
