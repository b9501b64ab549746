"""The commands of the program, put together, and what becomes of an error that one of them ends with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

import pgpubsub
from pgpubsub.cli import demo, doctor, listen, notify, serve, stream, top, trigger
from pgpubsub.cli.interruption import Interruption
from pgpubsub.cli.statuses import FAILED, NO_CONNECTION, USAGE, Ended
from pgpubsub.cli.terminal import Terminal
from pgpubsub.drivers.psycopg3 import psycopg
from pgpubsub.errors import (
    ConnectionFailed,
    ConnectionLost,
    NotLive,
    PayloadError,
    PositionError,
    PubSubError,
    ServerInRecovery,
    StreamsNotInstalled,
    UnusableDeployment,
)

__all__ = ["app", "run"]

WITHOUT_CONNECTION = (ConnectionFailed, ConnectionLost, NotLive, ServerInRecovery, UnusableDeployment)

app = typer.Typer(
    name="pgpubsub",
    help="Publish and subscribe in PostgreSQL, over LISTEN and NOTIFY.",
    epilog="Exit status: 0 done, 1 failed, 3 no connection, 4 timed out, 64 wrong usage, 128 + n ended by signal n."
    " The doctor has its own: pgpubsub doctor --help.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("listen")(listen.listen)
app.command("notify")(notify.notify)
app.add_typer(stream.app, name="stream")
app.add_typer(trigger.app, name="trigger")
app.command("top")(top.top)
app.command("doctor")(doctor.doctor)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"pgpubsub {pgpubsub.__version__}")  # noqa: T201
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str] | None, interruption: Interruption) -> None:
    """Do what the command line says.

    Raises:
        Ended: with another status than 0, after having said why.
        SystemExit: Typer has said what is wrong with the command line; or a signal has come.
    """
    terminal = Terminal(interruption)
    try:
        typer.main.get_command(app)(arguments, prog_name="pgpubsub", obj=terminal)
    except PubSubError as error:
        terminal.say(_words(error))
        raise Ended(_status(error)) from error
    except psycopg.Error as error:
        terminal.say(_words(error))
        raise Ended(FAILED if error.sqlstate else NO_CONNECTION) from error


def _status(error: PubSubError) -> int:
    if isinstance(error, WITHOUT_CONNECTION):
        return NO_CONNECTION
    if isinstance(error, PayloadError):  # of standard input, mostly
        return FAILED
    return USAGE if isinstance(error, ValueError) else FAILED


def _words(error: Exception) -> str:
    """What to say of an error, on one line."""
    text = str(error)
    if isinstance(error, StreamsNotInstalled):
        text += "; the command for it is: pgpubsub stream install (with the same --schema)"
    if isinstance(error, PositionError):
        text += "; here that is: beginning, end, or a position that pgpubsub stream read has shown"
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        told = (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint)
        text = ". ".join(part for part in told if part)
    return " ".join(text.split())
