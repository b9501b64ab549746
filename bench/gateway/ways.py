"""Whose server: how it is started, where its clients go, and how a message is sent to them.

All are run by uvicorn, with the same event loop and parser as ours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import psycopg

import pgpubsub.streams

__all__ = ["Way", "others", "ours", "ours_stream"]

NOTIFY = "SELECT pg_notify('bench', %s)"
APPEND = "SELECT pgpubsub.append('bench', %s)"
BEHIND = 10_000
"""Messages that a client of ours may be behind: others have no limit, or the table."""


@dataclass(frozen=True)
class Way:
    """See the module."""

    name: str
    """Of its database, too."""
    path: str
    """Of its clients' requests."""
    send: str
    """The statement that sends a message."""
    command: Callable[[str, int], Sequence[str]]
    """By DSN and port."""
    prepare: Callable[[psycopg.Connection], object] = bool
    """The database."""
    sessions: int = 0
    """That it has in the database from its start."""


def ours(workers: int = 1) -> Way:
    """A channel."""
    name = f"gateway_channel_{workers}"
    return Way(name, "/channels/bench", NOTIFY, partial(_serve, workers=workers), sessions=2 * workers)


def ours_stream() -> Way:
    """A stream."""
    return Way("gateway_stream", "/streams/bench", APPEND, _serve, pgpubsub.streams.install)


def others(module: str, send: str = NOTIFY, prepare: Callable[[psycopg.Connection], object] = bool) -> Way:
    """The application of a module of `bench.peers`."""
    path = "/rooms/bench/stream" if module == "pg_sse" else "/events"
    return Way(f"gateway_{module}", path, send, lambda _, port: _uvicorn(module, port), prepare)


def _serve(dsn: str, port: int, workers: int = 1) -> Sequence[str]:
    options = {"--dsn": dsn, "--port": str(port), "--workers": str(workers), "--max-behind": str(BEHIND)}
    words = [word for option in options.items() for word in option]
    return [sys.executable, "-m", "pgpubsub", "serve", "--public", "*", *words]


def _uvicorn(module: str, port: int) -> Sequence[str]:
    alike = ("--http", "httptools", "--loop", "asyncio", "--no-access-log", "--no-server-header")
    app = ("--factory", f"bench.peers.{module}:application")
    return [sys.executable, "-m", "uvicorn", *app, "--port", str(port), *alike]
