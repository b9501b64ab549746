"""`pgpubsub notify`: send one notification, or one for each line of standard input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from pgpubsub.cli.connecting import hub
from pgpubsub.cli.incoming import Batch, batches, progress
from pgpubsub.cli.options import Dsn, Headers, parsed
from pgpubsub.cli.terminal import Terminal
from pgpubsub.errors import PayloadError
from pgpubsub.threads.hub import Hub

__all__ = ["notify"]


def notify(
    ctx: typer.Context,
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="Its exact name.")],
    payload: Annotated[
        str, typer.Argument(metavar="PAYLOAD|-", help="-: one for each line of standard input.", show_default=False)
    ] = "",
    headers: Headers = None,
    dsn: Dsn = "",
) -> None:
    """Send a notification, or many.

    With -, lines are sent as they come, in transactions of up to 1,000 lines or 1 MiB. Equal lines are all sent. At
    the end, also if it is interrupted or fails, it says how many were sent.
    """
    terminal: Terminal = ctx.obj
    beside = parsed(headers)
    with hub(terminal, dsn) as its_hub:
        if payload != "-":
            with terminal.interruption.breaking():
                its_hub.notify(channel, payload, headers=beside)
            return
        with progress(terminal, "sent") as tally, terminal.interruption.breaking():
            for batch in batches():
                _send(its_hub, channel, batch, beside, tally.add)
                tally.reach(batch.place)


def _send(hub: Hub, channel: str, batch: Batch, headers: dict[str, Any] | None, count: Callable[[int], None]) -> None:
    sent = 0

    def on_progress(number: int) -> None:
        nonlocal sent
        count(number - sent)
        sent = number

    try:
        hub.notify_stream(((channel, line) for line in batch.lines), headers=headers, on_progress=on_progress)
    except PayloadError as error:
        raise batch.fault(sent, error) from error
