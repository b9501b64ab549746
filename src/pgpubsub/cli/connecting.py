"""Connections, on behalf of a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import typer

from pgpubsub.background import BackgroundCall
from pgpubsub.cli.terminal import Terminal
from pgpubsub.drivers.psycopg3 import open_connection, parse_conninfo, psycopg
from pgpubsub.threads.consumer import Consumer
from pgpubsub.threads.hub import Hub
from pgpubsub.threads.reader import Reader
from pgpubsub.threads.subscription import Subscription

__all__ = ["arguments", "connected", "entered", "hub"]

TO_CLOSE = 5.0
"""Seconds for what is still to be sent."""

Received = TypeVar("Received", Subscription[Any], Reader[Any], Consumer[Any])


@contextmanager
def connected(terminal: Terminal, dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection in autocommit mode. A signal ends whatever is waited for."""
    conninfo = parse_conninfo(dsn, {})
    call = BackgroundCall(lambda: open_connection(conninfo))  # which may wait for a name server, and hears nothing then
    try:
        with terminal.interruption.breaking():
            call.start()
            conn = call.result()
    except BaseException:
        call.abandon(_close)
        raise
    with terminal.interruption.breaking(), conn:
        yield conn


def _close(conn: psycopg.Connection[Any] | None) -> None:
    if conn is not None:
        conn.close()


@contextmanager
def hub(terminal: Terminal, dsn: str) -> Iterator[Hub]:
    """A hub that is live. From then on what happens to its connections is told."""
    its = Hub(dsn)
    try:
        with terminal.interruption.breaking():
            its.__enter__()
        with terminal.telling_of_connections():
            yield its
    finally:
        its.close(0 if terminal.interruption.status else TO_CLOSE)


@contextmanager
def entered(terminal: Terminal, receiver: Received) -> Iterator[Received]:
    """What receives, once it does. A signal ends the waiting for that."""
    with closing(receiver):
        with terminal.interruption.breaking():
            receiver.__enter__()
        yield receiver


@contextmanager
def arguments() -> Iterator[None]:
    """What the library says of its arguments here is about the command line."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from error
