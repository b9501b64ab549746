"""`pgpubsub stream consume`."""

from __future__ import annotations

import json
from collections import deque
from typing import Annotated, Any

import typer

from pgpubsub.cli.connecting import arguments, entered, hub
from pgpubsub.cli.executing import Command
from pgpubsub.cli.options import AsJson, Count, Dsn, Schema, Timeout, positive
from pgpubsub.cli.receiving import arrivals, check_count
from pgpubsub.cli.statuses import FAILED, Ended
from pgpubsub.cli.stream.reading import place, show
from pgpubsub.cli.terminal import Terminal
from pgpubsub.errors import LeaseLost
from pgpubsub.events import Entry, Gap
from pgpubsub.threads.consumer import Delivery

__all__ = ["consume"]


def consume(
    ctx: typer.Context,
    stream: Annotated[str, typer.Argument(metavar="STREAM")],
    group: Annotated[str, typer.Argument(metavar="GROUP", help="It comes into being with its first consumer.")],
    command: Annotated[
        str | None,
        typer.Option(
            "--exec",
            metavar="CMD",
            help="Run CMD in a shell for each entry; if it fails, the entry comes again. It reads the payload from"
            " standard input and has PGPUBSUB_STREAM, PGPUBSUB_GROUP, PGPUBSUB_ID, PGPUBSUB_KEY and PGPUBSUB_HEADERS.",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option(help="Wait for more at the end, or end there.")] = True,
    start: Annotated[
        str, typer.Option(metavar="PLACE", help="Where a new group begins: as for read --after.")
    ] = "beginning",
    attempts: Annotated[int, typer.Option(min=1, metavar="N", help="Set an entry aside after so many.")] = 5,
    lease: Annotated[
        float,
        typer.Option(metavar="S", callback=positive, help="Seconds after which others take over from a dead member."),
    ] = 30.0,
    as_json_: AsJson = False,
    count: Count = None,
    timeout: Timeout = None,
    schema: Schema = "pgpubsub",
    dsn: Dsn = "",
) -> None:
    """Take part in a group.

    Handles entries, one after the other, by showing them or by a command.

    What is shown, or what CMD ended well for, is acknowledged, and comes to no other member of the group. What was in
    hand when this is interrupted comes again.

    Exit status: 1 if a CMD failed, 4 if --count was not reached within --timeout.
    """
    terminal: Terminal = ctx.obj
    command_ = None if command is None else Command(command, terminal)
    gaps = deque[Gap]()
    handled = 0
    with hub(terminal, dsn) as its_hub:
        with arguments():
            consumer = its_hub.stream(stream, schema=schema).consume(
                group, follow=follow, start=place(start), attempts=attempts, lease=lease, on_gap=gaps.append
            )
        with entered(terminal, consumer):
            for delivery in arrivals(terminal, consumer, timeout):
                while gaps and command_ is None:
                    show(terminal, gaps.popleft(), as_json_)
                handled += _handled(terminal, delivery, command_, {"STREAM": stream, "GROUP": group}, as_json_)
                if handled == count:
                    break
    if command_ is not None and command_.failures:
        raise Ended(FAILED)
    check_count(terminal, handled, count, timeout)


def _handled(
    terminal: Terminal, delivery: Delivery[Any], command: Command | None, about: dict[str, str], as_json_: bool
) -> bool:
    """Handle one; whether that went well. If it is lost to others meanwhile, as when the connection was, it comes
    again, to them or to us."""
    entry, fault = delivery.entry, None
    if command is None:
        show(terminal, entry, as_json_)
        terminal.flush()  # it was handled when it was written
    else:
        fault = command.run({**about, **_about(entry)}, _payload(entry))
    try:
        with terminal.interruption.finishing():
            if fault is None:
                delivery.acknowledge()
            else:
                delivery.fail(fault)
    except LeaseLost as error:
        terminal.say(f"entry {entry.id} comes again: {error}")
        return False
    return fault is None


def _about(entry: Entry[Any]) -> dict[str, str]:
    headers = "" if entry.headers is None else json.dumps(entry.headers)
    return {"ID": str(entry.id), "KEY": entry.key or "", "HEADERS": headers}


def _payload(entry: Entry[Any]) -> bytes:
    return entry.payload if isinstance(entry.payload, bytes) else str(entry.payload).encode(errors="surrogateescape")
