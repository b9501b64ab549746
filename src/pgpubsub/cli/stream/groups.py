"""How groups stand, and what is done about entries that they set aside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from pgpubsub.cli.connecting import arguments, hub
from pgpubsub.cli.lines import as_json, moment, payload_text, printable
from pgpubsub.cli.options import AsJson, Dsn, Schema
from pgpubsub.cli.stream.reading import place
from pgpubsub.cli.terminal import Terminal
from pgpubsub.errors import PositionError
from pgpubsub.groups.status import DeadLetter, GroupInfo
from pgpubsub.threads.stream import Stream

__all__ = ["dead", "discard", "groups", "redrive", "seek"]

LARGEST = 2**63 - 1
"""As PostgreSQL's bigint."""

StreamName = Annotated[str, typer.Argument(metavar="STREAM")]
GroupName = Annotated[str, typer.Argument(metavar="GROUP")]
Ids = Annotated[list[int] | None, typer.Argument(min=1, max=LARGEST, metavar="ID", help="All, if none is given.")]


def groups(
    ctx: typer.Context, stream: StreamName, as_json_: AsJson = False, schema: Schema = "pgpubsub", dsn: Dsn = ""
) -> None:
    """Show the groups of a stream.

    How many entries they have not settled, how old the oldest of these is, how many members take part, how many
    entries failed and wait to be tried again, and how many were set aside.
    """
    terminal: Terminal = ctx.obj
    with _stream(terminal, stream, schema, dsn) as its:
        found = its.groups()
    if as_json_:
        for group in found:
            terminal.json({"kind": "group", **asdict(group)})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("group", "lag", "oldest", "members", "held up", "dead"):
        table.add_column(heading, justify="left" if heading == "group" else "right", overflow="fold")
    for group in found:
        table.add_row(printable(group.name), *_figures(group))
    terminal.table(table)


def dead(
    ctx: typer.Context,
    stream: StreamName,
    group: GroupName,
    limit: Annotated[int, typer.Option(min=1, max=LARGEST, metavar="N", help="Show the N oldest at most.")] = 1000,
    as_json_: AsJson = False,
    schema: Schema = "pgpubsub",
    dsn: Dsn = "",
) -> None:
    """Show the entries that a group has set aside, a line each.

    When, id, attempts, key, payload, and the last error.
    """
    terminal: Terminal = ctx.obj
    with _stream(terminal, stream, schema, dsn) as its:
        letters = its.dead(group, limit=limit)
    for letter in letters:
        if as_json_:
            terminal.json(_as_json(letter))
        else:
            terminal.line(_as_text(letter))


def redrive(
    ctx: typer.Context,
    stream: StreamName,
    group: GroupName,
    ids: Ids = None,
    schema: Schema = "pgpubsub",
    dsn: Dsn = "",
) -> None:
    """Have entries that were set aside handed out again.

    Prints how many those were.
    """
    terminal: Terminal = ctx.obj
    with _stream(terminal, stream, schema, dsn) as its:
        terminal.line(str(its.redrive(group, ids or None)))


def discard(
    ctx: typer.Context,
    stream: StreamName,
    group: GroupName,
    ids: Ids = None,
    schema: Schema = "pgpubsub",
    dsn: Dsn = "",
) -> None:
    """Forget entries that were set aside.

    Prints how many those were.
    """
    terminal: Terminal = ctx.obj
    with _stream(terminal, stream, schema, dsn) as its:
        terminal.line(str(its.discard(group, ids or None)))


def seek(
    ctx: typer.Context,
    stream: StreamName,
    group: GroupName,
    to: Annotated[
        str, typer.Argument(metavar="PLACE", help="beginning, end, a position, or a time: 2026-01-31T12:00:00.")
    ],
    schema: Schema = "pgpubsub",
    dsn: Dsn = "",
) -> None:
    """Let a group go on elsewhere. What its members have in hand is lost to them."""
    terminal: Terminal = ctx.obj
    try:
        there: Any = datetime.fromisoformat(to).astimezone()
    except ValueError:
        there = place(to)
    with _stream(terminal, stream, schema, dsn) as its:
        try:
            its.seek(group, there)
        except PositionError as error:
            raise PositionError(f"{to!r} is no time, such as 2026-01-31T12:00:00, and {error}") from error


@contextmanager
def _stream(terminal: Terminal, name: str, schema: str, dsn: str) -> Iterator[Stream[Any]]:
    """A stream to ask about. A signal ends the waiting."""
    with hub(terminal, dsn) as its_hub, arguments():
        its = its_hub.stream(name, schema=schema)
        with terminal.interruption.breaking():
            yield its


def _figures(group: GroupInfo) -> Iterator[str]:
    yield f"{group.lag:,}"
    yield f"{group.lag_seconds:,.0f} s" if group.lag else "-"
    yield str(len(group.members))
    yield str(len(group.held_up))
    yield str(group.dead)


def _as_json(letter: DeadLetter[Any]) -> dict[str, Any]:
    about = {"attempts": letter.attempts, "error": letter.error, "dead_at": letter.dead_at.isoformat()}
    entry: Any = letter.entry  # text or bytes, as no type was given
    return as_json(entry, letter.dead_at) | {"kind": "dead_letter"} | about


def _as_text(letter: DeadLetter[Any]) -> str:
    entry: Any = letter.entry
    key = "-" if entry.key is None else printable(entry.key)
    error = printable(" ".join((letter.error or "").split()))
    return f"{moment(letter.dead_at)}  {entry.id}  {letter.attempts}  {key}  {payload_text(entry.payload)}  {error}"
