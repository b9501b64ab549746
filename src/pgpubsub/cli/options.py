"""Options that several commands have."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import typer

__all__ = ["AsJson", "Count", "Dsn", "Headers", "Schema", "Timeout", "parsed", "positive"]


def positive(seconds: float | None) -> float | None:
    """Check a number of seconds."""
    if seconds is not None and not 0 < seconds <= 86_400 * 366:
        raise typer.BadParameter(f"{seconds:g} is not a number of seconds above 0, and at most a year")
    return seconds


def parsed(headers: list[str] | None) -> dict[str, Any] | None:
    """What `--header` says, as often as it was given."""
    its: dict[str, Any] = {}
    for header in headers or ():
        name, equals, value = header.partition("=")
        if not equals:
            raise typer.BadParameter(f"{header!r} is not NAME=VALUE", param_hint="--header")
        its[name] = _value(value)
    return its or None


def _value(text: str) -> Any:
    """As JSON has it, which Python's reads more of: NaN, Infinity, and numbers beyond all measure. These are text."""
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return text


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number of JSON's")
    return number


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
Headers = Annotated[
    list[str] | None,
    typer.Option("--header", metavar="NAME=VALUE", help="Beside the payload; VALUE is JSON, or else text."),
]
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
