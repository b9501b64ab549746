"""Table changes as messages: triggers that notify a channel, or append to a stream, and never fail.

`install` makes them, `drop` takes them away, `installed` says which there are; `sql` has the statement for a migration.

The user's write never fails because of a trigger, with three exceptions that are PostgreSQL's: a `statement_timeout`
may come while one runs; a transaction that has sent a notification cannot be prepared (PREPARE TRANSACTION); and one
whose notifications alone fill what is left of the queue, a tenth at least, cannot commit.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Unpack

from pgpubsub.drivers.borrowed import Statement, run, run_async
from pgpubsub.triggers import statements
from pgpubsub.triggers.classic import create_table_notify_trigger, create_tables_notify_func
from pgpubsub.triggers.definition import (
    Options,
    ToStream,
    Trigger,
    check_trigger_name,
    quote_table,
    stream,
    target_of,
    wanted,
)

__all__ = [
    "ToStream",
    "Trigger",
    "create_table_notify_trigger",
    "create_tables_notify_func",
    "drop",
    "drop_async",
    "drop_sql",
    "install",
    "install_async",
    "installed",
    "installed_async",
    "sql",
    "stream",
]


def sql(table: tuple[str, str] | str, **options: Unpack[Options]) -> str:
    """The statement that `install` runs, for a migration: Alembic's `op.execute(...)`, Django's `RunSQL(...)`, psql. It
    can be run again and again. Arguments and errors are as for `install`; what depends on the table is found when it is
    run.

    >>> import pgpubsub.triggers
    >>> pgpubsub.triggers.sql("orders", to="orders").startswith("-- Installs a trigger")
    True
    """
    return statements.install(wanted(table, **options))


def install(conn: Any, table: tuple[str, str] | str, **options: Unpack[Options]) -> None:
    """Have the changes of a table told. May be repeated: what is as it should be is not touched, and what is to be
    otherwise is replaced, in one transaction, and stays enabled or disabled as it was. Repeat it when the table was
    renamed, moved or given another owner, a column was added, renamed, dropped or given another type, or the key
    changed.

    Args:
        conn: a connection as for `pgpubsub.notify`, of the table's owner. What is not in autocommit mode has to be
            committed afterwards.
        table: a (schema, name) pair of exact names, or text as PostgreSQL reads it: "orders", 'sales."Orders"'. A
            table, partitioned or not.
        to: a channel's name, a `Channel`, a hub's stream, or `pgpubsub.triggers.stream(name)`.
        on: some of "insert", "update", "delete" and "truncate"; by default all but the last.
        columns: those to be watched and sent, beside the key. By default all. An update that changes none of them is
            not told.
        key_only: send the primary key and nothing else of the row.
        old: send also the row as it was before an update or a delete.
        when: an SQL condition on NEW, OLD and TG_OP; where it is not true, nothing is told. NEW has only NULLs in a
            delete, and OLD in an insert. It is SQL, and run: never make it of what others say. It sees no schema but
            `pg_catalog`: other functions and operators need theirs. With level="statement" and updates, it can look at
            OLD only if there is a primary key. A truncate is told anyway.
        level: "row", a message for each row; or "statement", one for each statement (with a count and keys to a
            channel; an entry for each row to a stream), which is faster where many rows are changed at once.
        name: tells triggers on one table apart; up to 40 bytes, "pgpubsub" by default.
        definer: have the trigger act with its owner's rights (SECURITY DEFINER), and not with those of whoever changes
            the table. To append to a stream takes rights on the stream.

    Raises:
        ValueError, TypeError: an argument is not possible.
        UnsupportedConnection: `conn` is something else.
        Exception: what the driver raises, for example for a view, or a column that is not there.

    >>> import psycopg, pgpubsub.triggers
    >>> with psycopg.connect(dsn) as conn:
    ...     _ = conn.execute("CREATE TABLE IF NOT EXISTS parcel (id int PRIMARY KEY, state text)")
    ...     pgpubsub.triggers.install(conn, "parcel", to="parcels")
    >>> with pgpubsub.connect(dsn) as pubsub, psycopg.connect(dsn, autocommit=True) as conn:
    ...     pubsub.listen("parcels")
    ...     _ = conn.execute("INSERT INTO parcel VALUES (17, 'packed') ON CONFLICT (id) DO UPDATE SET state = 'lost'")
    ...     print(pubsub.get_event(5).payload[:98])
    {"op":"insert","schema":"public","table":"parcel","key":{"id":17},"row":{"id":17,"state":"packed"}
    """
    text = sql(table, **options)
    run(conn, Statement(lambda: text), "use await pgpubsub.triggers.install_async()")


async def install_async(conn: Any, table: tuple[str, str] | str, **options: Unpack[Options]) -> None:
    """`install` on an asynchronous connection."""
    text = sql(table, **options)
    await run_async(conn, Statement(lambda: text), "use pgpubsub.triggers.install()")


def drop_sql(table: tuple[str, str] | str, name: str | None = None) -> str:
    """The statement that `drop` runs, for a migration.

    >>> import pgpubsub.triggers
    >>> pgpubsub.triggers.drop_sql("orders").startswith("-- Drops a trigger")
    True
    """
    return statements.drop(quote_table(table), check_trigger_name(name))


def drop(conn: Any, table: tuple[str, str] | str, name: str | None = None) -> None:
    """Drop a trigger, if there is one of this name. Arguments are as for `install`.

    >>> import psycopg, pgpubsub.triggers
    >>> with psycopg.connect(dsn) as conn:
    ...     _ = conn.execute("CREATE TABLE IF NOT EXISTS invoice (id int PRIMARY KEY)")
    ...     pgpubsub.triggers.drop(conn, "invoice")
    """
    text = drop_sql(table, name)
    run(conn, Statement(lambda: text), "use await pgpubsub.triggers.drop_async()")


async def drop_async(conn: Any, table: tuple[str, str] | str, name: str | None = None) -> None:
    """`drop` on an asynchronous connection."""
    text = drop_sql(table, name)
    await run_async(conn, Statement(lambda: text), "use pgpubsub.triggers.drop()")


def installed(conn: Any) -> list[Trigger]:
    """The triggers of this database that were installed by pgpubsub.

    >>> import psycopg, pgpubsub.triggers
    >>> with psycopg.connect(dsn) as conn:
    ...     _ = conn.execute("CREATE TABLE IF NOT EXISTS receipt (id int PRIMARY KEY)")
    ...     pgpubsub.triggers.install(conn, "receipt", to="receipts")
    ...     for trigger in pgpubsub.triggers.installed(conn):
    ...         if trigger.table == ("public", "receipt"):
    ...             print(trigger.to, trigger.on, trigger.failures)
    receipts ('insert', 'update', 'delete') 0
    """
    return _triggers(run(conn, _query(), "use await pgpubsub.triggers.installed_async()"))


async def installed_async(conn: Any) -> list[Trigger]:
    """`installed` on an asynchronous connection."""
    return _triggers(await run_async(conn, _query(), "use pgpubsub.triggers.installed()"))


def _query() -> Statement:
    return Statement(lambda nothing: f"{statements.installed()} WHERE CAST({nothing} AS text) IS NULL", (None,))


def _triggers(answer: str | None) -> list[Trigger]:
    found = []
    for one in json.loads(answer or "[]"):
        with suppress(ValueError, TypeError, KeyError, RecursionError):  # anybody may write a comment like one of ours
            found.append(_trigger(**one))
    return found


def _trigger(table: list[str], settings: str, failures: int) -> Trigger:
    schema, name = table
    given: dict[str, Any] = json.loads(settings)
    options: dict[str, Any] = {
        option: given[option] for option in ("name", "key_only", "old", "when", "level", "definer")
    }
    options["to"] = target_of(given["to"])
    options["on"] = tuple(given["on"])
    options["columns"] = None if given["columns"] is None else tuple(given["columns"])
    wanted((schema, name), **options)  # raises if it could not be installed
    return Trigger(table=(schema, name), failures=failures, **options)
