"""What autogenerate does with triggers and streams: it compares those that are declared with those that are installed.

The operations of a migration come in this order: streams are installed, triggers dropped, tables made, changed and
dropped as Alembic has it, triggers installed. Taken back, that is right as well.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from operator import attrgetter
from typing import Any

import alembic.util
import sqlalchemy
from alembic.autogenerate import comparators
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation
from alembic.operations.ops import (
    AddColumnOp,
    AlterColumnOp,
    CreateTableOp,
    DropColumnOp,
    DropTableOp,
    ModifyTableOps,
    UpgradeOps,
)
from sqlalchemy import Connection, Table

import pgpubsub.streams
import pgpubsub.triggers
from pgpubsub.contrib.alembic.operations import DropTriggerOp, InReverseOp, InstallStreamsOp, InstallTriggerOp
from pgpubsub.contrib.sqlalchemy import TRIGGERS, Settings, streams_of, triggers_of
from pgpubsub.streams.installation import VERSION
from pgpubsub.triggers.definition import Options, wanted

__all__: list[str] = []

Key = tuple[str | None, str]
"""A table: its schema, None for the default one as Alembic has it, and its name."""

PRIORITY = getattr(alembic.util, "DispatchPriority", None)
"""Before Alembic 1.18 comparators run in the order of registration, in which Alembic's own come first."""
AFTER_ITS_OWN: Any = {} if PRIORITY is None else {"priority": PRIORITY.LAST}


@comparators.dispatch_for("schema", **AFTER_ITS_OWN)
def _compare(autogen_context: AutogenContext, upgrade_ops: UpgradeOps, schemas: Collection[str | None]) -> None:
    for operation in upgrade_ops.ops:
        if isinstance(operation, CreateTableOp):
            operation.info.pop(TRIGGERS, None)  # which would be written into the migration
    connection = autogen_context.connection
    if connection is None or connection.dialect.name != "postgresql":
        return
    _leave_streams_alone(autogen_context, connection, upgrade_ops)
    declared = _declared(autogen_context, connection, upgrade_ops, schemas)
    dropped = {(one.schema, one.table_name) for one in upgrade_ops.ops if isinstance(one, DropTableOp)}
    installed = _installed(connection, declared.keys() | dropped)
    _leave_those_of_others(autogen_context, declared, installed)
    first, last = _changes(declared, installed, upgrade_ops)
    upgrade_ops.ops[:] = [*_missing_streams(autogen_context, connection), *first, *upgrade_ops.ops, *last]


# -- triggers


def _declared(
    autogen_context: AutogenContext, connection: Connection, upgrade_ops: UpgradeOps, schemas: Collection[str | None]
) -> dict[Key, Table]:
    """The tables in which Alembic is interested, and that are there, or will be."""
    made = {(one.schema, one.table_name) for one in upgrade_ops.ops if isinstance(one, CreateTableOp)}
    found = {}
    for table in autogen_context.sorted_tables:
        schema, name = key = _key(connection, table.schema, table.name)
        if (table.schema, name) in made or (
            schema in schemas
            and name in autogen_context.inspector.get_table_names(schema=schema)
            and autogen_context.run_name_filters(name, "table", {"schema_name": schema})
            and autogen_context.run_object_filters(table, name, "table", False, table)
        ):
            found[key] = table
    return found


def _installed(connection: Connection, tables: Collection[Key]) -> dict[Key, dict[str, Settings]]:
    """The triggers of these tables, and not of others, which anybody may have made."""
    found: dict[Key, dict[str, Settings]] = {}
    theirs = [one for one in pgpubsub.triggers.installed(connection) if _key(connection, *one.table) in tables]
    for one in sorted(theirs, key=attrgetter("table", "name")):
        options: Any = {name: getattr(one, name) for name in Options.__annotations__}
        settings = wanted(one.table, **options).settings
        found.setdefault(_key(connection, *one.table), {})[one.name] = settings
    return found


def _leave_those_of_others(
    autogen_context: AutogenContext, declared: Mapping[Key, Table], installed: Mapping[Key, dict[str, Settings]]
) -> None:
    """Forget triggers that are not declared, and that `include_object` leaves out."""
    kind: Any = "trigger"  # which Alembic's types do not know
    for key, table in declared.items():
        there = installed.get(key, {})
        for name in sorted(there.keys() - triggers_of(table).keys()):
            if not autogen_context.run_object_filters(table, name, kind, True, None):
                del there[name]


def _key(connection: Connection, schema: str | None, name: str) -> Key:
    return None if schema == connection.dialect.default_schema_name else schema, name


def _changes(
    declared: Mapping[Key, Table], installed: Mapping[Key, Mapping[str, Settings]], upgrade_ops: UpgradeOps
) -> tuple[list[MigrateOperation], list[MigrateOperation]]:
    """What to do before the tables are changed, and what afterwards."""
    first: list[MigrateOperation] = []
    last: list[MigrateOperation] = []
    for one in upgrade_ops.ops:
        if isinstance(one, DropTableOp):
            for name, former in installed.get((one.schema, one.table_name), {}).items():
                first.append(DropTriggerOp(one.table_name, name, one.schema, former=former))
    for key, table in declared.items():
        there = installed.get(key, {})
        for name, former in there.items():
            if name not in triggers_of(table):
                first.append(DropTriggerOp(table.name, name, table.schema, former=former))
        for name, settings in triggers_of(table).items():
            if name not in there:
                last.append(InstallTriggerOp(table.name, table.schema, settings))
            elif there[name] != settings or _is_outdated(key, settings, upgrade_ops):
                back = InstallTriggerOp(table.name, table.schema, there[name], replaces=True)
                first.append(InReverseOp(back))
                last.append(InstallTriggerOp(table.name, table.schema, settings, replaces=True))
    return first, last


def _is_outdated(key: Key, settings: Settings, upgrade_ops: UpgradeOps) -> bool:
    """Whether columns change that the trigger was written for."""
    for table in upgrade_ops.ops:
        if isinstance(table, ModifyTableOps) and (table.schema, table.table_name) == key:
            for one in table.ops:
                if isinstance(one, AlterColumnOp) and one.modify_type is not None:
                    return True
                if isinstance(one, AddColumnOp | DropColumnOp) and settings["columns"] is None:
                    return True
    return False


# -- streams


def _missing_streams(autogen_context: AutogenContext, connection: Connection) -> list[MigrateOperation]:
    there = _schemas_with_streams(connection)
    declared = {schema for one in alembic.util.to_list(autogen_context.metadata) for schema in streams_of(one)}
    return [
        InstallStreamsOp(schema)
        for schema in sorted(declared)
        if schema not in there or (there[schema] and _version(connection, schema) < VERSION)
    ]


def _schemas_with_streams(connection: Connection) -> dict[str, bool]:
    """And whether this role may read their version. If it may not, they are taken as new enough."""
    statement = """
        SELECT namespace.nspname, pg_catalog.has_schema_privilege(namespace.oid, 'USAGE')
               AND bool_or(relname = 'version' AND pg_catalog.has_table_privilege(class.oid, 'SELECT')) AS readable
          FROM pg_catalog.pg_class AS class JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = relnamespace
         WHERE relname IN ('entry', 'entry_id', 'stream', 'version')
         GROUP BY namespace.oid, namespace.nspname HAVING count(*) = 4"""
    return {one.nspname: one.readable for one in connection.execute(sqlalchemy.text(statement))}


def _version(connection: Connection, schema: str) -> int:
    table = sqlalchemy.table("version", sqlalchemy.column("number"), schema=sqlalchemy.quoted_name(schema, True))
    return connection.scalar(sqlalchemy.select(sqlalchemy.func.max(table.c.number))) or 0


def _leave_streams_alone(autogen_context: AutogenContext, connection: Connection, upgrade_ops: UpgradeOps) -> None:
    """Streams have tables that no metadata declares, and that are not to be dropped for that."""
    names = re.findall(r"CREATE (?:UNLOGGED )?TABLE IF NOT EXISTS \S+\.(\w+) ", pgpubsub.streams.sql())
    theirs = {_key(connection, schema, name) for schema in _schemas_with_streams(connection) for name in names}
    theirs -= {_key(connection, table.schema, table.name) for table in autogen_context.sorted_tables}
    upgrade_ops.ops[:] = [
        one
        for one in upgrade_ops.ops
        if not isinstance(one, DropTableOp | ModifyTableOps) or (one.schema, one.table_name) not in theirs
    ]
