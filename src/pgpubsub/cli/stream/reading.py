"""`pgpubsub stream read`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from psycopg.sql import SQL, Identifier

from pgpubsub.cli.connecting import arguments, connected, entered, hub
from pgpubsub.cli.lines import as_json, as_text
from pgpubsub.cli.options import AsJson, Count, Dsn, Schema, Timeout
from pgpubsub.cli.receiving import arrivals, check_count
from pgpubsub.cli.terminal import Terminal
from pgpubsub.core.position import BEGINNING, END, Start, stream_id
from pgpubsub.drivers.psycopg3 import psycopg
from pgpubsub.errors import PubSubError
from pgpubsub.events import Entry

__all__ = ["After", "place", "read"]

After = Annotated[
    str, typer.Option(metavar="PLACE", help="beginning, end, or a position that an entry was shown with.")
]


def read(
    ctx: typer.Context,
    stream: Annotated[str, typer.Argument(metavar="STREAM")],
    after: After = "beginning",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more at the end.")] = False,
    as_json_: AsJson = False,
    count: Count = None,
    timeout: Timeout = None,
    schema: Schema = "pgpubsub",
    dsn: Dsn = "",
) -> None:
    """Show entries, a line each.

    A line has when the entry was appended, its id, its key and its payload. At the end it says, on standard error,
    the position from which to go on; with --json each entry has its own.
    """
    terminal: Terminal = ctx.obj
    shown, position = 0, None
    with hub(terminal, dsn) as its_hub:
        with arguments():
            reader = its_hub.stream(stream, schema=schema).read(after=place(after), follow=follow)
        with entered(terminal, reader):
            if not _exists(terminal, stream, schema, dsn):
                terminal.say(f"there is no stream {stream!r} yet: it comes into being when something is appended")
            for event in arrivals(terminal, reader, timeout):
                if isinstance(event, Entry):
                    shown, position = shown + 1, event.position
                    show(terminal, event, as_json_, position=position)
                else:
                    show(terminal, event, as_json_)
                if shown == count:
                    break
    terminal.flush()
    if position is not None and not as_json_:
        terminal.say(f"to go on from here: --after {position}")
    check_count(terminal, shown, count, timeout)


def _exists(terminal: Terminal, stream: str, schema: str, dsn: str) -> bool:
    """Whether there is a stream of this name, as far as can be seen."""
    known = SQL("SELECT FROM {} WHERE id = %s").format(Identifier(schema, "stream"))
    try:
        with connected(terminal, dsn) as conn:
            return conn.execute(known, [stream_id(stream)]).fetchone() is not None
    except (psycopg.Error, PubSubError):  # a role may read entries and not this
        return True


def place(text: str) -> str | Start:
    """Where to begin."""
    return {"beginning": BEGINNING, "end": END}.get(text, text)


def show(terminal: Terminal, event: Any, as_json_: bool, **beside: str) -> None:
    """One entry or gap, as a line; JSON has what is given `beside` too."""
    at = datetime.now().astimezone()
    if as_json_:
        terminal.json(as_json(event, at) | beside)
    else:
        terminal.line(as_text(event, at))
