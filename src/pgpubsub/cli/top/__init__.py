"""`pgpubsub top`: what goes on in a database as far as LISTEN, NOTIFY and streams are concerned, as a live screen.

It reads, and changes nothing; with channels named it listens to them as any subscriber does. It promises no history,
and no more than what one role is shown by one server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from pgpubsub.channel import name_of
from pgpubsub.cli.connecting import arguments
from pgpubsub.cli.options import AsJson, Dsn, Schema, positive
from pgpubsub.cli.terminal import Terminal
from pgpubsub.cli.top.attention import Attention
from pgpubsub.cli.top.audiences import Json, Pages, Screen
from pgpubsub.cli.top.hearing import OWN_NAME, Ears
from pgpubsub.cli.top.watching import Watch
from pgpubsub.core.entries import check_schema
from pgpubsub.doctor.sampling import Sampler

__all__ = ["top"]

FAREWELL = 1.0
"""Seconds that the connections may take to be closed."""


def top(
    ctx: typer.Context,
    channels: Annotated[
        list[str] | None, typer.Argument(metavar="CHANNEL", help="Channels to count notifications on.")
    ] = None,
    interval: Annotated[
        float, typer.Option(metavar="S", callback=positive, help="Seconds from one sample to the next.")
    ] = 1.0,
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="End after N samples. [default: 1 if nobody looks]")
    ] = None,
    as_json: AsJson = False,
    schema: Schema = "pgpubsub",
    dsn: Dsn = "",
) -> None:
    """Watch channels, listeners, the NOTIFY queue, streams and groups. To end it, type q.

    On a terminal that is a screen, drawn again every second. Elsewhere, or with --json, each sample is printed; what it
    says of rates is about the interval before it, for which it waits.
    """
    terminal: Terminal = ctx.obj
    with arguments():
        check_schema(schema)
        names = tuple(dict.fromkeys(map(name_of, channels or ())))
    looked_at = terminal.out.is_terminal
    live = looked_at and not as_json and not terminal.out.is_dumb_terminal
    if count is None and not looked_at:
        count = 1
    sampler = Sampler(dsn, schema, OWN_NAME)
    with Attention(terminal.interruption, keys=looked_at) as attention, _hearing(dsn, names, attention) as ears:
        audience = Json(terminal) if as_json else Screen(interval) if live else Pages(terminal, interval)
        watch = Watch(sampler, ears, attention, audience, first=live, count=count)
        try:
            with audience:
                watch.run(interval)
        finally:
            watch.end()


@contextmanager
def _hearing(dsn: str, names: tuple[str, ...], attention: Attention) -> Iterator[Ears]:
    ears = Ears(dsn, names, attention.wake)
    try:
        yield ears
    finally:
        ears.close(FAREWELL)
