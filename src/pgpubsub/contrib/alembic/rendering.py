"""The operations as autogenerate writes them into migrations."""

from __future__ import annotations

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext

from pgpubsub.contrib.alembic.operations import DropTriggerOp, InReverseOp, InstallStreamsOp, InstallTriggerOp
from pgpubsub.contrib.sqlalchemy import options_of
from pgpubsub.triggers import ToStream
from pgpubsub.triggers.definition import Options, check_trigger_name

__all__: list[str] = []


@renderers.dispatch_for(InstallTriggerOp)
def _render_install_trigger(autogen_context: AutogenContext, operation: InstallTriggerOp) -> str:
    options = dict(options_of(operation.settings))
    words = [repr(str(operation.table_name))]
    if operation.schema is not None:
        words.append(f"schema={str(operation.schema)!r}")
    for name in (name for name in Options.__annotations__ if name in options):
        value = options[name]
        if isinstance(value, ToStream):
            autogen_context.imports.add("import pgpubsub.triggers")
            schema = "" if value.schema == "pgpubsub" else f", schema={value.schema!r}"
            words.append(f"to=pgpubsub.triggers.stream({value.name!r}{schema})")
        else:
            words.append(f"{name}={value!r}")
    return f"{_prefix(autogen_context)}install_trigger({', '.join(words)})"


@renderers.dispatch_for(DropTriggerOp)
def _render_drop_trigger(autogen_context: AutogenContext, operation: DropTriggerOp) -> str:
    words = [repr(str(operation.table_name))]
    if operation.name != check_trigger_name(None):
        words.append(repr(operation.name))
    if operation.schema is not None:
        words.append(f"schema={str(operation.schema)!r}")
    return f"{_prefix(autogen_context)}drop_trigger({', '.join(words)})"


@renderers.dispatch_for(InstallStreamsOp)
def _render_install_streams(autogen_context: AutogenContext, operation: InstallStreamsOp) -> str:
    schema = "" if operation.schema == "pgpubsub" else repr(operation.schema)
    return f"{_prefix(autogen_context)}install_streams({schema})"


@renderers.dispatch_for(InReverseOp)
def _render_nothing(autogen_context: AutogenContext, operation: InReverseOp) -> list[str]:
    return []


def _prefix(autogen_context: AutogenContext) -> str:
    return autogen_context.opts.get("alembic_module_prefix") or ""
