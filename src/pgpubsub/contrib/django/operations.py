"""Operations for Django's migrations: triggers, and the tables of streams.

>>> from pgpubsub.contrib.django.operations import InstallTrigger
>>> print(InstallTrigger("order", to="orders", on=["insert"]).describe())
Tell orders of changes to order

On other databases than PostgreSQL, and where the router says no, they do nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db import router
from django.db.migrations.operations.base import Operation, OperationCategory

from pgpubsub import streams, triggers
from pgpubsub.core.entries import check_schema
from pgpubsub.triggers.definition import Event, Level, Options, ToStream, target_of, wanted

__all__ = ["DropTrigger", "InstallStreams", "InstallTrigger", "SchemaOperation"]

EVENTS: tuple[Event, ...] = ("insert", "update", "delete")


class _TriggerOperation(Operation):  # type: ignore[misc]
    """What has to do with the triggers of one model's table."""

    reduces_to_sql = True
    model_name: str

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Models know nothing of triggers."""

    def references_model(self, name: str, app_label: str) -> bool:
        return name.lower() == self.model_name.lower()

    def _install(self, app_label: str, schema_editor: Any, state: Any, options: Mapping[str, Any]) -> None:
        if (model := self._model(app_label, schema_editor, state)) is not None:
            given = options.get("columns")
            columns = None if given is None else [_column(model, name) for name in given]
            text = triggers.sql(_table(schema_editor, model), **{**options, "columns": columns})
            schema_editor.execute(text, params=None)

    def _drop(self, app_label: str, schema_editor: Any, state: Any, name: str | None) -> None:
        if (model := self._model(app_label, schema_editor, state)) is not None:
            schema_editor.execute(triggers.drop_sql(_table(schema_editor, model), name), params=None)

    def _model(self, app_label: str, schema_editor: Any, state: Any) -> Any | None:
        model = state.apps.get_model(app_label, self.model_name)
        connection = schema_editor.connection
        # Also of a model that Django does not make the table of, which is why `allow_migrate_model` is not asked.
        wanted = connection.vendor == "postgresql" and router.allow_migrate_model(connection.alias, model)
        return model if wanted else None


class InstallTrigger(_TriggerOperation):
    """Have the changes of a model's table told to a channel or a stream: `pgpubsub.triggers.install`.

    Args:
        model_name: of the same application.
        replaces: the operation that installed what this one replaces (a trigger of the same name), which is installed
            again when the migration is undone. Without it, undoing drops the trigger.
        to, on, columns, key_only, old, when, level, name, definer: as for `pgpubsub.triggers.install`. `columns` may
            name fields.

    Raises:
        ValueError, TypeError: an option is not possible.
    """

    category = OperationCategory.ADDITION

    def __init__(  # no keywords alone, which migrations that Django writes would lack
        self,
        model_name: str,
        to: Any,
        on: Iterable[Event] = EVENTS,
        columns: Iterable[str] | None = None,
        key_only: bool = False,
        old: bool = False,
        when: str | None = None,
        level: Level = "row",
        name: str | None = None,
        definer: bool = False,
        replaces: InstallTrigger | None = None,
    ) -> None:
        given: Options = {
            "to": to,
            "on": on,
            "columns": columns,
            "key_only": key_only,
            "old": old,
            "when": when,
            "level": level,
            "name": name,
            "definer": definer,
        }
        checked = wanted(model_name, **given).settings
        self.model_name = model_name
        self.replaces = replaces
        self.options: dict[str, Any] = {
            **given,
            "to": target_of(checked["to"]),
            "on": tuple(checked["on"]),
            "columns": checked["columns"],
        }

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        usual = {"on": EVENTS, "level": "row"}
        written = {name: value for name, value in self.options.items() if value and value != usual.get(name)}
        if isinstance(written["to"], ToStream):
            written["to"] = _WrittenStream(written["to"])
        if self.replaces is not None:
            written["replaces"] = self.replaces
        return type(self).__name__, [self.model_name], written

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        self._install(app_label, schema_editor, to_state, self.options)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if self.replaces is None:
            self._drop(app_label, schema_editor, to_state, self.options.get("name"))
        else:
            self._install(app_label, schema_editor, to_state, self.replaces.options)

    def describe(self) -> str:
        to = self.options["to"]
        return f"Tell {to.name if isinstance(to, ToStream) else to} of changes to {self.model_name}"

    @property
    def migration_name_fragment(self) -> str:
        return f"{self.model_name.lower()}_{self.options.get('name') or 'pgpubsub'}_trigger"


class DropTrigger(_TriggerOperation):
    """Drop a trigger that a migration installed, if it is there.

    Args:
        model_name: of the same application.
        name: the trigger's, if it was given one.
        was: the operation that installed it: then this migration can be undone.
    """

    category = OperationCategory.REMOVAL

    def __init__(self, model_name: str, name: str | None = None, was: InstallTrigger | None = None) -> None:
        wanted(model_name, to="-", name=name)
        self.model_name = model_name
        self.name = name
        self.was = was

    @property
    def reversible(self) -> bool:
        return self.was is not None

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        self._drop(app_label, schema_editor, to_state, self.name)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        assert self.was is not None  # since it says whether this is reversible
        self._install(app_label, schema_editor, to_state, self.was.options)

    def describe(self) -> str:
        return f"Drop the trigger {self.name or 'pgpubsub'} of {self.model_name}"

    @property
    def migration_name_fragment(self) -> str:
        return f"drop_{self.model_name.lower()}_{self.name or 'pgpubsub'}_trigger"


class SchemaOperation(Operation):  # type: ignore[misc]
    """What is installed in a database schema of its own. Undoing leaves it, since it holds data."""

    reduces_to_sql = True
    category = OperationCategory.SQL
    what: str

    def __init__(self, schema: str) -> None:
        check_schema(schema)
        self.schema = schema

    def text(self) -> str:
        """The statements. They may be repeated. (It is not called `sql`, by which Django knows its own `RunSQL`.)"""
        raise NotImplementedError

    def state_forwards(self, app_label: str, state: Any) -> None:
        """There are no models of it."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        connection = schema_editor.connection
        if connection.vendor == "postgresql" and router.allow_migrate(connection.alias, app_label):
            schema_editor.execute(self.text(), params=None)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """See the class."""

    def describe(self) -> str:
        return f"Install {self.what} in schema {self.schema}"

    @property
    def migration_name_fragment(self) -> str:
        return f"pgpubsub_{self.what.replace(' ', '_')}"


class InstallStreams(SchemaOperation):
    """Install what streams need, or bring it up to date: `pgpubsub.streams.install`. Undoing leaves it, since it holds
    data: `DROP SCHEMA pgpubsub CASCADE` removes it.

    Args:
        schema: where the tables and functions go.
    """

    what = "streams"

    def __init__(self, schema: str = "pgpubsub") -> None:
        super().__init__(schema)

    def text(self) -> str:
        return streams.sql(self.schema)


class _WrittenStream:
    """A stream as migrations write it. (They would write a named tuple as a tuple.)"""

    def __init__(self, to: ToStream) -> None:
        self._to = to

    def deconstruct(self) -> tuple[str, list[str], dict[str, str]]:
        return "pgpubsub.triggers.stream", list(self._to), {}


def _table(schema_editor: Any, model: Any) -> str:
    return str(schema_editor.quote_name(model._meta.db_table))


def _column(model: Any, name: str) -> str:
    try:
        return str(model._meta.get_field(name).column)
    except FieldDoesNotExist:
        return name
