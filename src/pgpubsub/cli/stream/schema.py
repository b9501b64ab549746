"""The tables of streams, the streams' settings, and what is not kept."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import typer

import pgpubsub.streams
from pgpubsub.cli.connecting import arguments, connected
from pgpubsub.cli.options import Dsn, Schema
from pgpubsub.cli.terminal import Terminal
from pgpubsub.streams.settings import UNCHANGED, Unchanged

__all__ = ["create", "install", "trim"]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def install(
    ctx: typer.Context,
    print_: Annotated[bool, typer.Option("--print", help="Print the statements and run nothing.")] = False,
    schema: Schema = "pgpubsub",
    dsn: Dsn = "",
) -> None:
    """Install what streams need, or bring it up to date.

    May be repeated, and be done while streams are in use.
    """
    terminal: Terminal = ctx.obj
    with arguments():
        text = pgpubsub.streams.sql(schema)
    if print_:
        terminal.line(text)
        return
    with connected(terminal, dsn) as conn, conn.transaction():
        pgpubsub.streams.install(conn, schema)
    terminal.hint(f"streams are installed in schema {schema}")


def create(
    ctx: typer.Context,
    stream: Annotated[str, typer.Argument(metavar="STREAM")],
    wake: Annotated[
        Literal["notify", "poll"] | None,
        typer.Option(
            help="Whether an append in a transaction of somebody's own wakes readers, or they look by themselves."
        ),
    ] = None,
    max_age: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Keep entries this long at least: 30d, 12h, 90m, 3600s; never: for ever."),
    ] = None,
    max_entries: Annotated[str | None, typer.Option(metavar="N", help="Keep the newest N entries; never: all.")] = None,
    keep_unconsumed: Annotated[
        bool | None,
        typer.Option("--keep-unconsumed/--drop-unconsumed", help="Keep what a group has not handled, however old."),
    ] = None,
    schema: Schema = "pgpubsub",
    dsn: Dsn = "",
) -> None:
    """Make a stream, or change its settings.

    What is left out stays as it is. A stream that is appended to comes into being by itself.
    """
    with arguments(), connected(ctx.obj, dsn) as conn:
        pgpubsub.streams.create(
            conn,
            stream,
            wake=UNCHANGED if wake is None else wake,
            max_age=_age(max_age),
            max_entries=_number(max_entries),
            keep_unconsumed=UNCHANGED if keep_unconsumed is None else keep_unconsumed,
            schema=schema,
        )


def trim(
    ctx: typer.Context,
    stream: Annotated[str | None, typer.Argument(metavar="STREAM", help="All, if it is left out.")] = None,
    schema: Schema = "pgpubsub",
    dsn: Dsn = "",
) -> None:
    """Remove the entries that need not be kept.

    Prints how many those were. Hubs that use streams do the same in the background.
    """
    terminal: Terminal = ctx.obj
    with arguments(), connected(terminal, dsn) as conn:
        terminal.line(str(pgpubsub.streams.trim(conn, stream, schema=schema)))


def _age(text: str | None) -> float | Unchanged | None:
    if text is None:
        return UNCHANGED
    if text == "never":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no age: 30d, 12h, 90m, 3600s or never", param_hint="--max-age")
    return float(found[1]) * UNITS[found[2]]


def _number(text: str | None) -> int | Unchanged | None:
    if text is None:
        return UNCHANGED
    if text == "never":
        return None
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is no number of entries, nor never", param_hint="--max-entries")
    return int(text)
