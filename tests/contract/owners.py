"""Owners of a transaction: one for each driver and framework that sends in its own, made alike.

What is asynchronous runs on an event loop of its own, one call after the other, below a blocking cover.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import asyncpg
import django
import django.conf
import django.db
import psycopg
import psycopg2
import pytest
import sqlalchemy
from django.db import transaction as django_transaction
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)

import pgpubsub
from tests.contract.conftest import connect_with

__all__ = ["OWNERS", "Owner", "connected", "options_of", "use_django"]

Scope = Callable[[], AbstractContextManager[Any]]
"""Makes what a transaction, or a part of it, happens within. An exception rolls it back, and is passed on."""


@dataclass
class Owner:
    conn: Any
    notify: Callable[..., None]
    execute: Callable[[str], Any]
    transaction: Scope
    savepoint: Scope
    error: type[Exception]
    """What a statement raises in a transaction that has failed."""


def connected(kind: str, dsn: str, *, autocommit: bool = False) -> AbstractContextManager[Owner]:
    """An owner with a connection."""
    return contextmanager(OWNERS[kind])(dsn, autocommit)


@contextmanager
def scope(begin: Callable[[], Any], commit: Callable[[], Any], rollback: Callable[[], Any]) -> Iterator[None]:
    begin()
    try:
        yield
    except BaseException:
        rollback()
        raise
    commit()


def nothing() -> None:
    """The driver begins by itself."""


def statements(execute: Callable[[str], Any], begin: str, commit: str, rollback: str) -> Scope:
    return partial(scope, *(partial(execute, statement) for statement in (begin, commit, rollback)))


def owner(
    conn: Any,
    execute: Callable[[str], Any],
    error: type[Exception],
    transaction: Scope | None = None,
    savepoint: Scope | None = None,
) -> Owner:
    transaction = transaction or partial(scope, nothing, conn.commit, conn.rollback)
    savepoint = savepoint or statements(execute, "SAVEPOINT a", "RELEASE SAVEPOINT a", "ROLLBACK TO SAVEPOINT a")
    return Owner(conn, partial(pgpubsub.notify, conn), execute, transaction, savepoint, error)


# -- blocking


def options_of(dsn: str) -> dict[str, Any]:
    options = conninfo_to_dict(dsn)
    names = {"host": "host", "port": "port", "user": "user", "password": "password", "database": "dbname"}
    return {key: options[name] for key, name in names.items() if options.get(name)}


def psycopg_(dsn: str, autocommit: bool) -> Iterator[Owner]:
    with psycopg.connect(dsn, autocommit=autocommit) as conn:
        error = psycopg.errors.InFailedSqlTransaction
        yield owner(conn, conn.execute, error, conn.transaction, conn.transaction)


def psycopg_implicit(dsn: str, autocommit: bool) -> Iterator[Owner]:
    with psycopg.connect(dsn, autocommit=autocommit) as conn:
        yield owner(conn, conn.execute, psycopg.errors.InFailedSqlTransaction)


def psycopg2_(dsn: str, autocommit: bool) -> Iterator[Owner]:
    conn = psycopg2.connect(dsn)
    conn.autocommit = autocommit
    yield owner(conn, conn.cursor().execute, psycopg2.errors.InFailedSqlTransaction)
    conn.close()


def pg_(kind: str, dsn: str, autocommit: bool) -> Iterator[Owner]:
    pg = pytest.importorskip("pg")
    conn = connect_with(kind, dsn)
    yield owner(conn, conn.query, pg.InternalError, statements(conn.query, "BEGIN", "COMMIT", "ROLLBACK"))
    conn.close()


def pgdb_(dsn: str, autocommit: bool) -> Iterator[Owner]:
    pgdb = pytest.importorskip("pgdb")
    conn = pgdb.connect(**options_of(dsn))
    conn.autocommit = autocommit
    yield owner(conn, conn.cursor().execute, pgdb.InternalError)
    conn.close()


def engine_of(driver: str, dsn: str, autocommit: bool) -> sqlalchemy.Engine:
    connect: Any = psycopg.connect if driver == "psycopg" else psycopg2.connect
    level: Any = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
    return sqlalchemy.create_engine(
        f"postgresql+{driver}://", creator=partial(connect, dsn), poolclass=sqlalchemy.NullPool, **level
    )


def sqlalchemy_(make: Callable[[sqlalchemy.Engine], Any], driver: str, dsn: str, autocommit: bool) -> Iterator[Owner]:
    engine = engine_of(driver, dsn, autocommit)
    conn = make(engine)
    yield Owner(
        conn,
        partial(pgpubsub.notify, conn),
        lambda statement: conn.execute(sqlalchemy.text(statement)),
        conn.begin,
        conn.begin_nested,
        sqlalchemy.exc.InternalError,
    )
    conn.close()


def scoped_session(engine: sqlalchemy.Engine) -> Any:
    return orm.scoped_session(orm.sessionmaker(engine))


def use_django(dsn: str) -> None:
    """Once, since Django's settings are the process's."""
    if not django.conf.settings.configured:
        options = conninfo_to_dict(dsn)
        names = {"NAME": "dbname", "HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password"}
        settings = {key: options.get(name) or "" for key, name in names.items()}
        other = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
        django.conf.settings.configure(
            DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", **settings}, "other": other},
            LOGGING_CONFIG=None,
        )
        django.setup()


def django_(find: Callable[[], Any], dsn: str, autocommit: bool) -> Iterator[Owner]:
    use_django(dsn)
    conn = find()

    def execute(statement: str) -> None:
        with conn.cursor() as cursor:
            cursor.execute(statement)

    atomic = django_transaction.atomic
    yield Owner(conn, partial(pgpubsub.notify, conn), execute, atomic, atomic, django.db.InternalError)
    conn.close()


# -- asynchronous


@contextmanager
def covered(run: Callable[[Any], Any], make: Callable[[], Any]) -> Iterator[None]:
    context = make()
    run(context.__aenter__())
    try:
        yield
    except BaseException as error:
        if not run(context.__aexit__(type(error), error, error.__traceback__)):
            raise
    else:
        run(context.__aexit__(None, None, None))


def covered_owner(runner: asyncio.Runner, conn: Any, begin: Any, nested: Any, execute: Any, error: Any) -> Owner:
    def notify(*arguments: Any, **keywords: Any) -> None:
        runner.run(pgpubsub.notify_async(conn, *arguments, **keywords))

    return Owner(
        conn,
        notify,
        lambda statement: runner.run(execute(statement)),
        partial(covered, runner.run, begin),
        partial(covered, runner.run, nested),
        error,
    )


def psycopg_async(dsn: str, autocommit: bool) -> Iterator[Owner]:
    with asyncio.Runner() as runner:
        conn = runner.run(psycopg.AsyncConnection.connect(dsn, autocommit=autocommit))
        begin = conn.transaction
        yield covered_owner(runner, conn, begin, begin, conn.execute, psycopg.errors.InFailedSqlTransaction)
        runner.run(conn.close())


def asyncpg_(keywords: dict[str, Any], dsn: str, autocommit: bool) -> Iterator[Owner]:
    error = asyncpg.InFailedSQLTransactionError
    with asyncio.Runner() as runner:
        conn = runner.run(asyncpg.connect(**options_of(dsn), **keywords))
        yield covered_owner(runner, conn, conn.transaction, conn.transaction, conn.execute, error)
        runner.run(conn.close())


def asyncpg_pool(dsn: str, autocommit: bool) -> Iterator[Owner]:
    error = asyncpg.InFailedSQLTransactionError
    with asyncio.Runner() as runner:
        pool = asyncpg.create_pool(**options_of(dsn), min_size=1, loop=runner.get_loop())
        runner.run(pool.__aenter__())
        conn = runner.run(pool.acquire().__aenter__())
        yield covered_owner(runner, conn, conn.transaction, conn.transaction, conn.execute, error)
        runner.run(pool.release(conn))
        runner.run(pool.close())


def async_engine_of(driver: str, dsn: str, autocommit: bool) -> AsyncEngine:
    async def connect(*_: Any, **__: Any) -> Any:
        if driver == "asyncpg":
            return await asyncpg.connect(**options_of(dsn))
        return await psycopg.AsyncConnection.connect(dsn)

    level: Any = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
    return create_async_engine(f"postgresql+{driver}://", async_creator=connect, **level)


def sqlalchemy_async_(make: Callable[[Any], Any], driver: str, dsn: str, autocommit: bool) -> Iterator[Owner]:
    engine = async_engine_of(driver, dsn, autocommit)
    with asyncio.Runner() as runner:
        conn = make(engine)
        if isinstance(conn, AsyncConnection):
            runner.run(conn.__aenter__())

        async def execute(statement: str) -> Any:
            return await conn.execute(sqlalchemy.text(statement))

        error = sqlalchemy.exc.DBAPIError
        yield covered_owner(runner, conn, conn.begin, conn.begin_nested, execute, error)
        runner.run(conn.close())
        runner.run(engine.dispose())


def new_async_scoped_session(engine: AsyncEngine) -> Any:
    # Of which there is one in each task, usually, but each of our calls is a task.
    factory = async_sessionmaker(engine)
    return async_scoped_session(factory, scopefunc=lambda: None)


OWNERS: dict[str, Callable[[str, bool], Iterator[Owner]]] = {
    "psycopg": psycopg_,
    "psycopg, implicit": psycopg_implicit,
    "psycopg2": psycopg2_,
    "pg.DB": partial(pg_, "pg.DB"),
    "pg.Connection": partial(pg_, "pg.Connection"),
    "pgdb": pgdb_,
    "SQLAlchemy Connection on psycopg": partial(sqlalchemy_, sqlalchemy.Engine.connect, "psycopg"),
    "SQLAlchemy Connection on psycopg2": partial(sqlalchemy_, sqlalchemy.Engine.connect, "psycopg2"),
    "SQLAlchemy Session": partial(sqlalchemy_, orm.Session, "psycopg"),
    "SQLAlchemy scoped_session": partial(sqlalchemy_, scoped_session, "psycopg2"),
    "Django connection": partial(django_, lambda: django.db.connection),
    "Django connections[]": partial(django_, lambda: django.db.connections["default"]),
    "psycopg AsyncConnection": psycopg_async,
    "asyncpg": partial(asyncpg_, {}),
    "asyncpg, no statement cache": partial(asyncpg_, {"statement_cache_size": 0}),
    "asyncpg pool": asyncpg_pool,
    "SQLAlchemy AsyncConnection on asyncpg": partial(sqlalchemy_async_, AsyncEngine.connect, "asyncpg"),
    "SQLAlchemy AsyncConnection on psycopg": partial(sqlalchemy_async_, AsyncEngine.connect, "psycopg"),
    "SQLAlchemy AsyncSession": partial(sqlalchemy_async_, AsyncSession, "asyncpg"),
    "SQLAlchemy async_scoped_session": partial(sqlalchemy_async_, new_async_scoped_session, "psycopg"),
}
