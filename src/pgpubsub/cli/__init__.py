"""The program `pgpubsub`.

Little is imported here, and only standard library: signals are in hand before the slow imports begin, and
`--help` works without the extra that `demo` needs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pgpubsub.cli.interruption import Interruption

if TYPE_CHECKING:
    from argparse import ArgumentParser

__all__ = ["main"]

NEEDS_EXTRA = "pgpubsub demo needs the extra 'demo': pip install 'pgpubsub[binary,demo]'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status. For a process that ends with it: signals are not given back."""
    interruption = Interruption()
    try:
        status = _obey(arguments, interruption)
    except BrokenPipeError:  # whoever was reading has read enough
        status = 1
    except (Exception, SystemExit):
        if not interruption.status:
            raise
        status = interruption.status  # whatever it made fail, such as writing to a terminal that is gone
    finally:
        _flush()
        interruption.over()
    return interruption.status or status


def _obey(arguments: Sequence[str] | None, interruption: Interruption) -> int:
    options = _parser().parse_args(arguments)
    try:
        from pgpubsub.cli.demo import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        return _refuse(NEEDS_EXTRA)
    from pgpubsub.testing.server import find_binaries

    try:
        binaries = find_binaries()
    except FileNotFoundError:
        return _refuse(NEEDS_EXTRA)
    interruption.check()
    return run(binaries, options.seconds, interruption)


def _parser() -> ArgumentParser:
    from argparse import ArgumentParser

    from pgpubsub import __version__

    parser = ArgumentParser("pgpubsub", description="Publish and subscribe in PostgreSQL, over LISTEN and NOTIFY.")
    parser.add_argument("--version", action="version", version=f"pgpubsub {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    about = "see it work, and recover from a lost connection, on a PostgreSQL server of its own"
    demo = commands.add_parser("demo", help=about, description=f"{about[0].upper()}{about[1:]}.")
    demo.add_argument(
        "--seconds", type=_seconds, default=8.0, metavar="N", help="how long to send notifications (default: 8)"
    )
    return parser


def _seconds(text: str) -> float:
    from argparse import ArgumentTypeError

    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds above 0, and at most a day")
    return seconds


def _refuse(why: str) -> int:
    sys.stderr.write(why + "\n")
    return 2


def _flush() -> None:
    """Have what cannot be written, to a pipe or terminal that is gone, forgotten: else Python complains at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
