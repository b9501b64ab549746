"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["AsJson", "Count", "Dsn", "Schema", "Timeout", "positive"]


def positive(seconds: float | None) -> float | None:
    """Check a number of seconds."""
    if seconds is not None and not 0 < seconds <= 86_400 * 366:
        raise typer.BadParameter(f"{seconds:g} is not a number of seconds above 0, and at most a year")
    return seconds


Dsn = Annotated[
    str,
    typer.Option(
        "--dsn",
        envvar="PGPUBSUB_DSN",
        metavar="DSN",
        help="Connection string or URI. What it does not say comes from libpq's environment (PGHOST, PGSERVICE...).",
        show_default=False,
    ),
]
Schema = Annotated[str, typer.Option("--schema", metavar="SCHEMA", help="Where streams are installed.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Count = Annotated[int | None, typer.Option("--count", min=1, metavar="N", help="End after N of them.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="S",
        callback=positive,
        help="End after S seconds; with status 4 if --count was not reached by then.",
    ),
]
