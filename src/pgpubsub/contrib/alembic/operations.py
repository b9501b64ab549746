"""The operations that migrations have: what each does, and what takes it back.

On other databases than PostgreSQL they do nothing.
"""

from __future__ import annotations

from typing import Any, Unpack

from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import OpContainer

import pgpubsub.streams
import pgpubsub.triggers
from pgpubsub.contrib.sqlalchemy import Settings, address, execute, options_of
from pgpubsub.triggers.definition import Options, check_trigger_name, wanted

__all__ = ["DropTriggerOp", "InReverseOp", "InstallStreamsOp", "InstallTriggerOp"]


@Operations.register_operation("install_trigger")
class InstallTriggerOp(MigrateOperation):
    """Install a trigger, or replace it."""

    def __init__(self, table_name: str, schema: str | None, settings: Settings, *, replaces: bool = False) -> None:
        self.table_name = table_name
        self.schema = schema
        self.settings = settings
        self.replaces = replaces
        """Whether there was one of its name. Then taking this one back is to install that one, and not to drop it."""

    @classmethod
    def install_trigger(
        cls, operations: Operations, table_name: str, *, schema: str | None = None, **options: Unpack[Options]
    ) -> None:
        """Have the changes of a table told. May be repeated: a trigger of this name is replaced.

        Args:
            table_name, schema: as for `op.create_table`.
            to, on, columns, key_only, old, when, level, name, definer: as for `pgpubsub.triggers.install`.
        """
        operations.invoke(cls(table_name, schema, wanted("declared", **options).settings))

    def reverse(self) -> MigrateOperation:
        if self.replaces:
            return InReverseOp(self)
        return DropTriggerOp(self.table_name, self.settings["name"], self.schema, former=self.settings)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return "install_trigger", self.schema, self.table_name, options_of(self.settings)


@Operations.register_operation("drop_trigger")
class DropTriggerOp(MigrateOperation):
    """Drop a trigger, with its function and its count."""

    def __init__(
        self, table_name: str, name: str | None = None, schema: str | None = None, *, former: Settings | None = None
    ) -> None:
        self.table_name = table_name
        self.name = check_trigger_name(name)
        self.schema = schema
        self.former = former
        """What it was, where that is known."""

    @classmethod
    def drop_trigger(
        cls, operations: Operations, table_name: str, name: str | None = None, *, schema: str | None = None
    ) -> None:
        """Drop a trigger, if there is one of this name. Do it before the table is dropped, or its function stays.

        Args:
            table_name, schema: as for `op.drop_table`.
            name: the trigger's, if it was given one.
        """
        operations.invoke(cls(table_name, name, schema))

    def reverse(self) -> InstallTriggerOp:
        if self.former is None:
            raise NotImplementedError(f"what the trigger {self.name!r} on {self.table_name!r} was is not known")
        return InstallTriggerOp(self.table_name, self.schema, self.former)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return "drop_trigger", self.schema, self.table_name, self.name


@Operations.register_operation("install_streams")
class InstallStreamsOp(MigrateOperation):
    """Install streams, or bring them up to date."""

    def __init__(self, schema: str = "pgpubsub") -> None:
        self.schema = schema

    @classmethod
    def install_streams(cls, operations: Operations, schema: str = "pgpubsub") -> None:
        """Install what streams need, or bring it up to date, as `pgpubsub.streams.install` does. A downgrade leaves it.

        Args:
            schema: where the tables and functions go, any name.
        """
        operations.invoke(cls(schema))

    def reverse(self) -> MigrateOperation:
        return InReverseOp(self)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return "install_streams", self.schema


class InReverseOp(OpContainer):
    """Does nothing, and is there for the other direction: what is taken back stands at the other end of a migration,
    and a trigger that is replaced has to be installed last in both, when the columns are as it wants them."""

    def __init__(self, operation: MigrateOperation) -> None:
        super().__init__()
        self.operation = operation

    def reverse(self) -> MigrateOperation:
        return self.operation


@Operations.implementation_for(InstallTriggerOp)
def _install_trigger(operations: Operations, operation: InstallTriggerOp) -> None:
    place = _place(operations, operation)
    _run(operations, pgpubsub.triggers.sql(place, **options_of(operation.settings)))


@Operations.implementation_for(DropTriggerOp)
def _drop_trigger(operations: Operations, operation: DropTriggerOp) -> None:
    _run(operations, pgpubsub.triggers.drop_sql(_place(operations, operation), operation.name))


@Operations.implementation_for(InstallStreamsOp)
def _install_streams(operations: Operations, operation: InstallStreamsOp) -> None:
    _run(operations, pgpubsub.streams.sql(operation.schema))


@Operations.implementation_for(InReverseOp)
def _do_nothing(operations: Operations, operation: InReverseOp) -> None:
    pass


def _place(operations: Operations, operation: InstallTriggerOp | DropTriggerOp) -> tuple[str, str] | str:
    table = operations.schema_obj.table(operation.table_name, schema=operation.schema)
    connection = operations.get_bind() if not operations.migration_context.as_sql else None
    return address(table.name, connection.schema_for_object(table) if connection else table.schema)


def _run(operations: Operations, text: str) -> None:
    context = operations.migration_context
    if context.dialect.name != "postgresql":
        return
    if context.as_sql:
        context.impl.static_output(text.strip())  # `execute` would look for parameters in it
    else:
        execute(operations.get_bind(), text)
