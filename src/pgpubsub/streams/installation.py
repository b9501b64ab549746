"""Installing the schema: on a connection of the user's, in the transaction that is open."""

from __future__ import annotations

import re
from importlib.resources import files
from operator import attrgetter
from typing import Any

from pgpubsub.core.entries import check_schema
from pgpubsub.core.sql import quote_identifier, quote_literal
from pgpubsub.drivers.borrowed import Statement, run, run_async
from pgpubsub.errors import StreamsNotInstalled

__all__ = [
    "VERSION",
    "check_version",
    "install",
    "install_async",
    "missing_schema",
    "not_installed",
    "restored",
    "sql",
]

VERSION = 1
"""Of the schema that this version of the library works with: it is served by that, and by later ones that say so."""

RELATIONS = (
    "acknowledged_member",
    "birth",
    "entry",
    "entry_id",
    "entry_once",
    "entry_read",
    "member_group",
    "native_birth",
    "parked_dead",
    "parked_due",
    "parked_due_line",
    "parked_line",
    "slot",
    "slot_group",
    "stream",
    "trimmed",
    "trimming",
)
"""Those that the scripts name in text."""


def sql(schema: str = "pgpubsub") -> str:
    """The statements that `install` runs, for a migration: Alembic's `op.execute(...)`, Django's `RunSQL(...)`, psql.

    They can be run again and again, in one transaction, by a role that may create the schema, or owns it.

    Args:
        schema: where the tables and functions go, any name.

    >>> import pgpubsub.streams
    >>> "CREATE TABLE IF NOT EXISTS \\"pgpubsub\\".entry" in pgpubsub.streams.sql()
    True
    """
    check_schema(schema)
    quoted = quote_identifier(schema)
    names = {
        "{schema}": quoted,
        "{schema_literal}": quote_literal(quoted),
    }
    for relation in RELATIONS:
        names[f"{{{relation}_literal}}"] = quote_literal(f"{quoted}.{relation}")
    scripts = sorted(
        (file for file in files("pgpubsub.schema").iterdir() if file.name.endswith(".sql")), key=attrgetter("name")
    )
    text = "\n".join(script.read_text("utf-8") for script in scripts)
    for tag in ("$do$", "$body$"):  # between which there are names
        text = text.replace(tag, _not_within(quoted, tag))
    return re.sub(r"\{\w+\}", lambda word: names.get(word[0], word[0]), text)


def install(conn: Any, schema: str = "pgpubsub") -> None:
    """Install what streams need, or bring it up to date. May be repeated, and be done while streams are in use.

    After a dump of the database was restored, it has to be done once more, before which streams are refused.

    Args:
        conn: a connection of psycopg 3, psycopg2, PyGreSQL, SQLAlchemy or Django, as for `pgpubsub.notify`. What is not
            in autocommit mode has to be committed afterwards.
        schema: where the tables and functions go, any name.

    Raises:
        UnsupportedConnection: `conn` is something else.
        Exception: what the driver raises, such as where the role may not create a schema.

    >>> import psycopg, pgpubsub.streams
    >>> with psycopg.connect(dsn) as conn:
    ...     pgpubsub.streams.install(conn)
    """
    text = sql(schema)
    run(conn, Statement(lambda: text), "use await pgpubsub.streams.install_async()")


async def install_async(conn: Any, schema: str = "pgpubsub") -> None:
    """`install` on an asynchronous connection: psycopg 3's, asyncpg's or SQLAlchemy's with psycopg."""
    text = sql(schema)
    await run_async(conn, Statement(lambda: text), "use pgpubsub.streams.install()")


def _not_within(text: str, tag: str) -> str:
    """`tag`, or one like it that does not occur in `text`."""
    while tag in text:
        tag = f"{tag[:-1]}_$"
    return tag


def check_version(schema: str, number: int, serves_from: int, is_native: bool) -> None:
    """Raise unless the schema that is installed is one to work with.

    Raises:
        StreamsNotInstalled: it is not; the message says what to do.
    """
    if number < VERSION:
        raise StreamsNotInstalled(
            f"the streams in schema {schema!r} have version {number} and this pgpubsub needs {VERSION}: run"
            f" pgpubsub.streams.install({_arguments(schema)}), which may be done while they are in use"
        )
    if serves_from > VERSION:
        raise StreamsNotInstalled(
            f"the streams in schema {schema!r} have version {number}, which serves versions from {serves_from} on, and"
            f" this pgpubsub has {VERSION}: use a newer pgpubsub"
        )
    if not is_native:
        raise restored(schema)


def restored(schema: str) -> StreamsNotInstalled:
    """The error to raise when entries came from another cluster."""
    return StreamsNotInstalled(
        f"the streams in schema {schema!r} were restored from a dump, or copied from another server, so that their"
        f" transaction ids mean nothing here: run pgpubsub.streams.install({_arguments(schema)}) once, which repairs"
        " that"
    )


def missing_schema(sqlstate: str | None) -> bool:
    """Whether this is what the server answers where the schema, or something in it, is missing."""
    return sqlstate in ("3F000", "42P01", "42883", "42703")


def not_installed(schema: str, error: Exception) -> StreamsNotInstalled:
    """The error to raise when the server knows nothing of the schema, or of something in it."""
    return StreamsNotInstalled(f"{how_to_install(schema)} ({str(error).strip().splitlines()[0]})")


def how_to_install(schema: str) -> str:
    """What to do where streams are not installed."""
    return (
        f"there are no streams in schema {schema!r} of this database: run"
        f" pgpubsub.streams.install({_arguments(schema)}) once"
    )


def _arguments(schema: str) -> str:
    return "conn" if schema == "pgpubsub" else f"conn, {schema!r}"
