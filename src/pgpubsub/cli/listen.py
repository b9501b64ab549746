"""`pgpubsub listen`: what arrives on channels, and where something may be missing."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated

import typer

from pgpubsub.cli.connecting import entered, hub
from pgpubsub.cli.executing import Command
from pgpubsub.cli.lines import as_json, as_text, explained
from pgpubsub.cli.options import AsJson, Count, Dsn, Timeout
from pgpubsub.cli.receiving import arrivals, check_count
from pgpubsub.cli.statuses import FAILED, Ended
from pgpubsub.cli.terminal import Terminal
from pgpubsub.events import Gap, Notify

__all__ = ["listen"]

WIDEST = 32
"""Columns for channels, at most."""

CAPACITY = 100_000
"""Notifications that wait to be shown, at most, as long as they have no more than 64 MiB."""


def listen(
    ctx: typer.Context,
    channels: Annotated[list[str], typer.Argument(metavar="CHANNEL", help="Exact names, upper and lower case kept.")],
    as_json_: AsJson = False,
    command: Annotated[
        str | None,
        typer.Option(
            "--exec",
            metavar="CMD",
            help="Run CMD in a shell for each, one after the other. It reads the payload from standard input and has"
            " PGPUBSUB_KIND (notify or gap), PGPUBSUB_CHANNEL, PGPUBSUB_PID, PGPUBSUB_HEADERS (JSON), and PGPUBSUB_GAP"
            " (JSON).",
        ),
    ] = None,
    count: Count = None,
    timeout: Timeout = None,
    dsn: Dsn = "",
) -> None:
    """Show what arrives on channels, a line each, until interrupted.

    Where something may have been lost, as when the connection was, a line says GAP, since when, and why. Gaps do not
    count as arrivals.

    Exit status: 1 if a CMD failed, 4 if --count was not reached within --timeout.
    """
    terminal: Terminal = ctx.obj
    width = min(max(map(len, channels)), WIDEST)
    command_ = None if command is None else Command(command, terminal)
    arrived = 0
    with hub(terminal, dsn) as its_hub:
        subscription = its_hub.subscribe(*channels, capacity=CAPACITY, overflow="drop_oldest")
        with entered(terminal, subscription) as events:
            terminal.hint(f"listening on {', '.join(channels)}; Ctrl-C ends it")
            for event in arrivals(terminal, events, timeout):
                arrived += isinstance(event, Notify)
                at = datetime.now().astimezone()
                if command_ is not None:
                    if (fault := command_.run(*_for_command(event, at))) is not None:
                        terminal.say(fault)
                elif as_json_:
                    terminal.json(as_json(event, at))
                else:
                    terminal.line(as_text(event, at, width))
                if arrived == count:
                    break
    terminal.flush()
    if command_ is not None and command_.failures:
        raise Ended(FAILED)
    check_count(terminal, arrived, count, timeout)


def _for_command(event: Notify | Gap, at: datetime) -> tuple[dict[str, str], bytes]:
    if isinstance(event, Gap):
        return {"KIND": "gap", "GAP": json.dumps(as_json(event, at))}, f"{explained(event)}\n".encode()
    return (
        {
            "KIND": "notify",
            "CHANNEL": event.channel,
            "PID": str(event.pid),
            "HEADERS": "" if event.headers is None else json.dumps(event.headers),
        },
        event.payload.encode(errors="surrogateescape"),
    )
