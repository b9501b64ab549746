"""Triggers and streams declared beside SQLAlchemy's tables, made and dropped with them (the extra `sqlalchemy`).

`trigger` says that the changes of a table are told, `streams` that a database has streams, `conninfo` how a hub gets to
where an engine leads. Sending and appending in a session's transaction are `pgpubsub.notify` and `pgpubsub.append`.
`pgpubsub.contrib.alembic` has the same for migrations. docs/sqlalchemy.md is the manual.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Unpack

if find_spec("sqlalchemy") is None:
    raise ImportError("pgpubsub.contrib.sqlalchemy needs SQLAlchemy: pip install 'pgpubsub[binary,sqlalchemy]'")

import sqlalchemy
from psycopg import ProgrammingError
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, Engine, MetaData, Table, event
from sqlalchemy.engine.mock import MockConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement

import pgpubsub.streams
import pgpubsub.triggers
from pgpubsub.core.sql import quote_identifier
from pgpubsub.drivers.borrowed import Statement, run
from pgpubsub.drivers.psycopg3 import LIBPQ_KEYWORDS
from pgpubsub.errors import ConninfoError
from pgpubsub.triggers.definition import Options, target_of, wanted

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["conninfo", "streams", "trigger"]

TRIGGERS = "pgpubsub_triggers"
"""In a table's `info`: for each trigger's name its settings, as the database stores them. They are plain values, since
Alembic writes `info` into migrations."""
STREAMS = "pgpubsub_streams"
"""In a MetaData's `info`: the schemas that streams are installed in."""

Settings = Mapping[str, Any]


def trigger(table: Any, **options: Unpack[Options]) -> None:
    """Declare that the changes of a table are told. `create_all`, or the table's own `create`, installs the trigger
    with the table, and dropping the table drops it. A table that is there already gets it by `pgpubsub.contrib.alembic`
    or `pgpubsub.triggers.install`. Other databases than PostgreSQL take no notice.

    Args:
        table: a `Table`, or a class that is mapped to one.
        to, on, columns, key_only, old, when, level, name, definer: as for `pgpubsub.triggers.install`. `columns` has
            names as they are in the database.

    Raises:
        TypeError: `table` is something else, or an option is.
        ValueError: an option is not possible, the table has no such column, or another trigger of this name.

    >>> from sqlalchemy import Column, Integer, MetaData, Table, Text, create_engine
    >>> from pgpubsub.contrib.sqlalchemy import trigger
    >>> metadata = MetaData()
    >>> ticket = Table("ticket", metadata, Column("id", Integer, primary_key=True), Column("state", Text))
    >>> trigger(ticket, to="tickets", columns=["state"])
    >>> engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    >>> import psycopg
    >>> metadata.create_all(engine)
    >>> with engine.connect() as conn:
    ...     [one.to for one in pgpubsub.triggers.installed(conn) if one.table[1] == "ticket"]
    ['tickets']
    >>> metadata.drop_all(engine)
    >>> engine.dispose()
    """
    table = _table(table)
    settings = wanted("declared", **options).settings
    columns = {_exact(column.name) for column in table.columns}
    if unknown := [name for name in settings["columns"] or () if name not in columns]:
        raise ValueError(f"{table.fullname} has no column {', '.join(unknown)}; it has {', '.join(sorted(columns))}")
    known = triggers_of(table)
    if known.get(settings["name"], settings) != settings:
        raise ValueError(f"{table.fullname} has a trigger {settings['name']!r} already: give this one another name")
    table.info[TRIGGERS] = {**known, settings["name"]: settings}
    # Propagated to copies of the table (`to_metadata`), as `info` is.
    event.listen(table, "after_create", _install_triggers, propagate=True)
    event.listen(table, "before_drop", _drop_triggers, propagate=True)


def streams(metadata: MetaData, schema: str = "pgpubsub") -> None:
    """Declare that a database has streams: `metadata.create_all` installs them, before it makes the tables. What they
    consist of is no part of `metadata`, and `drop_all` leaves it, with the entries.

    Args:
        metadata: such as `Base.metadata`.
        schema: where their tables and functions go, any name.

    Raises:
        TypeError, ValueError: an argument is not possible.

    >>> from sqlalchemy import MetaData
    >>> from pgpubsub.contrib.sqlalchemy import streams
    >>> streams(MetaData())
    """
    if not isinstance(metadata, MetaData):
        raise TypeError(f"metadata is a MetaData, such as Base.metadata, not {metadata!r}")
    pgpubsub.streams.sql(schema)  # which checks the name
    metadata.info[STREAMS] = sorted({*streams_of(metadata), schema})
    event.listen(metadata, "before_create", _install_streams)


def conninfo(engine: Engine | AsyncEngine | sqlalchemy.URL | str, **parameters: str | int) -> str:
    """The libpq connection string that leads where an engine's URL does: for `Hub`, `AsyncHub` and `pgpubsub.connect`.
    It contains the password.

    What an engine was given beside its URL, as `connect_args` or `creator`, is not known to it: repeat it as
    `parameters`. What libpq has no word for, such as asyncpg's `command_timeout`, is left out; `ssl` becomes `sslmode`.

    Args:
        engine: of any driver, blocking or asynchronous; or its URL.
        parameters: libpq's, such as `sslmode="verify-full"`, which count more than the URL's.

    Raises:
        ConninfoError: the URL does not lead to PostgreSQL, or libpq does not know a parameter.

    >>> from pgpubsub.contrib.sqlalchemy import conninfo
    >>> conninfo("postgresql+asyncpg://app:secret@db.example.org:6432/shop?ssl=require")
    'host=db.example.org dbname=shop user=app password=secret port=6432 sslmode=require'
    """
    url = sqlalchemy.make_url(engine if isinstance(engine, str | sqlalchemy.URL) else engine.url)
    if url.get_backend_name() != "postgresql":
        raise ConninfoError(f"{url!r} leads to {url.get_backend_name()} and not to PostgreSQL")
    dialect = url.set(drivername="postgresql+psycopg").get_dialect()()  # whose parameters are libpq's
    _, given = dialect.create_connect_args(url)
    known = {name: value for name, value in given.items() if name in LIBPQ_KEYWORDS}
    if "ssl" in given:
        known.setdefault("sslmode", given["ssl"])
    try:
        return make_conninfo(**{**known, **parameters})
    except ProgrammingError as error:
        raise ConninfoError(f"libpq does not take a parameter: {error}") from error


# -- what is declared


def triggers_of(table: Table) -> Mapping[str, Settings]:
    """The triggers declared on a table, by name."""
    declared: Mapping[str, Settings] = table.info.get(TRIGGERS, {})
    return declared


def streams_of(metadata: MetaData) -> list[str]:
    """The schemas in which streams are declared to be."""
    return list(metadata.info.get(STREAMS, ()))


def options_of(settings: Settings) -> Options:
    """What `pgpubsub.triggers.install` takes, without what it would take by itself."""
    ordinary = wanted("any", to="any").settings
    options: Any = {name: value for name, value in settings.items() if name == "to" or value != ordinary[name]}
    options["to"] = target_of(options["to"])
    return options  # type: ignore[no-any-return]


def address(name: str, schema: str | None) -> tuple[str, str] | str:
    """A table as `pgpubsub.triggers` takes it: without a schema, the one that PostgreSQL finds first."""
    return quote_identifier(_exact(name)) if schema is None else (_exact(schema), _exact(name))


def _exact(name: str) -> str:
    """As it is in the catalogs: what SQLAlchemy was told not to quote is folded by the server."""
    return name.lower() if getattr(name, "quote", None) is False else str(name)


def _table(table: Any) -> Table:
    found = table if isinstance(table, Table) else sqlalchemy.inspect(table, raiseerr=False)
    found = getattr(found, "local_table", found)  # of a mapped class
    if not isinstance(found, Table):
        raise TypeError(f"table is a Table, or a class that is mapped to one, not {table!r}")
    return found


# -- when tables are made and dropped


def _install_triggers(table: Table, connection: Connection, **_: Any) -> None:
    place = address(table.name, connection.schema_for_object(table))
    for settings in triggers_of(table).values():
        execute(connection, pgpubsub.triggers.sql(place, **options_of(settings)))


def _drop_triggers(table: Table, connection: Connection, **_: Any) -> None:
    place = address(table.name, connection.schema_for_object(table))
    for name in triggers_of(table):
        execute(connection, pgpubsub.triggers.drop_sql(place, name))


def _install_streams(metadata: MetaData, connection: Connection, **_: Any) -> None:
    for schema in streams_of(metadata):
        execute(connection, pgpubsub.streams.sql(schema))


def execute(connection: Connection | MockConnection, text: str) -> None:
    """Run statements on a connection to PostgreSQL, or have a mock engine see them."""
    if connection.dialect.name != "postgresql":
        return
    if isinstance(connection, MockConnection):
        connection.execute(_Script(text))
    else:
        run(connection, Statement(lambda: text), "use run_sync()")


class _Script(ExecutableDDLElement):
    """Statements that compile to their own text, in which a driver's placeholders and escapes mean nothing."""

    inherit_cache = False

    def __init__(self, text: str) -> None:
        self.text = text


@compiles(_Script)
def _text_of(script: _Script, _: Any, **__: Any) -> str:
    return script.text.strip().removesuffix(";")
