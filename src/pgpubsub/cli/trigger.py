"""`pgpubsub trigger`: table changes as messages."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

import pgpubsub.triggers
from pgpubsub.cli.connecting import arguments, connected
from pgpubsub.cli.lines import printable
from pgpubsub.cli.options import AsJson, Dsn, Schema
from pgpubsub.cli.terminal import Terminal
from pgpubsub.triggers.definition import Options, ToStream, Trigger

__all__ = ["app"]

app = typer.Typer(
    help="Table changes as messages: triggers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Table = Annotated[str, typer.Argument(metavar="TABLE", help="As PostgreSQL reads it: orders, 'sales.\"Orders\"'.")]
Name = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Tells triggers on one table apart. [default: pgpubsub]")
]
To = Annotated[str | None, typer.Option("--to", metavar="CHANNEL", help="Notify this channel.")]
ToAStream = Annotated[str | None, typer.Option("--to-stream", metavar="STREAM", help="Append to this stream.")]
On = Annotated[str, typer.Option("--on", metavar="EVENTS", help="Some of insert, update, delete, truncate.")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="COLUMN", help="Watch and send this; may be repeated. All, if none."),
]
KeyOnly = Annotated[bool, typer.Option("--key-only", help="Send the primary key and nothing else of the row.")]
Old = Annotated[bool, typer.Option("--old", help="Send also the row as it was before.")]
When = Annotated[
    str | None, typer.Option("--when", metavar="SQL", help="A condition on NEW, OLD and TG_OP. It is run.")
]
Level = Annotated[Literal["row", "statement"], typer.Option("--level", help="A message for each row, or statement.")]
Definer = Annotated[
    bool, typer.Option("--definer", help="Act with the rights of the owner, not of who changes the table.")
]


@app.command()
def install(
    ctx: typer.Context,
    table: Table,
    to: To = None,
    to_stream: ToAStream = None,
    on: On = "insert,update,delete",
    columns: Columns = None,
    key_only: KeyOnly = False,
    old: Old = False,
    when: When = None,
    level: Level = "row",
    name: Name = None,
    definer: Definer = False,
    schema: Schema = "pgpubsub",
    dsn: Dsn = "",
) -> None:
    """Have the changes of a table told. May be repeated; a changed definition replaces the old one."""
    text = _sql(table, to, to_stream, schema, on, columns, key_only, old, when, level, name, definer)
    terminal: Terminal = ctx.obj
    with connected(terminal, dsn) as conn, conn.transaction():
        conn.execute(text.encode())
    terminal.hint(f"changes of {table} are told")


@app.command()
def sql(
    ctx: typer.Context,
    table: Table,
    to: To = None,
    to_stream: ToAStream = None,
    on: On = "insert,update,delete",
    columns: Columns = None,
    key_only: KeyOnly = False,
    old: Old = False,
    when: When = None,
    level: Level = "row",
    name: Name = None,
    definer: Definer = False,
    schema: Schema = "pgpubsub",
) -> None:
    """Print the statement that install would run, for a migration."""
    terminal: Terminal = ctx.obj
    terminal.line(_sql(table, to, to_stream, schema, on, columns, key_only, old, when, level, name, definer))


@app.command()
def drop(ctx: typer.Context, table: Table, name: Name = None, dsn: Dsn = "") -> None:
    """Drop a trigger, if there is one of this name."""
    with arguments(), connected(ctx.obj, dsn) as conn:
        pgpubsub.triggers.drop(conn, table, name)


@app.command("list")
def list_(ctx: typer.Context, as_json_: AsJson = False, dsn: Dsn = "") -> None:
    """Show the triggers that were installed by pgpubsub."""
    terminal: Terminal = ctx.obj
    with connected(terminal, dsn) as conn:
        found = pgpubsub.triggers.installed(conn)
    for trigger in found:
        if as_json_:
            to = (
                {"channel": trigger.to}
                if isinstance(trigger.to, str)
                else {"stream": trigger.to.name, "schema": trigger.to.schema}
            )
            terminal.json({"kind": "trigger", **asdict(trigger), "to": to})
        else:
            terminal.line(_as_text(trigger))


def _sql(
    table: str,
    to: str | None,
    to_stream: str | None,
    schema: str,
    on: str,
    columns: list[str] | None,
    key_only: bool,
    old: bool,
    when: str | None,
    level: Literal["row", "statement"],
    name: str | None,
    definer: bool,
) -> str:
    if (to is None) == (to_stream is None):
        raise typer.BadParameter("give --to CHANNEL or --to-stream STREAM")
    with arguments():
        events: Any = [event.strip() for event in on.split(",")]
        target = to if to is not None else pgpubsub.triggers.stream(to_stream or "", schema)
        options = Options(
            to=target, on=events, columns=columns or None, key_only=key_only, old=old, when=when, level=level,
            name=name, definer=definer,
        )  # fmt: skip
        return pgpubsub.triggers.sql(table, **options)


def _as_text(trigger: Trigger) -> str:
    table = ".".join(map(printable, trigger.table))
    to = f"stream {trigger.to.name}" if isinstance(trigger.to, ToStream) else f"channel {trigger.to}"
    told = [table, printable(trigger.name), f"-> {printable(to)}", ",".join(trigger.on), trigger.level]
    if trigger.columns is not None:
        told.append(f"columns {', '.join(map(printable, trigger.columns))}")
    told += [word for word, given in (("key only", trigger.key_only), ("old", trigger.old)) if given]
    if trigger.when is not None:
        told.append(f"when {printable(trigger.when)}")
    if trigger.failures:
        told.append(f"{trigger.failures} FAILURES")
    return "  ".join(told)
