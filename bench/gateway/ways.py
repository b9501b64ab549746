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

__all__ = ["Way", "broadcaster", "listen_each", "ours", "ours_stream", "pg_sse"]

NOTIFY = "SELECT pg_notify('bench', %s)"
APPEND = "SELECT pgpubsub.append('bench', %s)"
INSERT = "INSERT INTO messages (room, body) VALUES ('bench', %s)"

CHAT = """
CREATE TABLE messages (
    id   bigserial PRIMARY KEY,
    room text NOT NULL,
    body text NOT NULL
);
CREATE INDEX messages_room_id ON messages (room, id);
"""

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


def broadcaster() -> Way:
    """See its application."""
    return Way("gateway_broadcaster", "/events", NOTIFY, lambda _, port: _uvicorn("broadcaster", port))


def pg_sse() -> Way:
    """See its application."""
    return Way("gateway_pg_sse", "/rooms/bench/stream", INSERT, lambda _, port: _uvicorn("pg_sse", port), _prepare_chat)


def listen_each() -> Way:
    """See its application."""
    return Way("gateway_listen_each", "/events", NOTIFY, lambda _, port: _uvicorn("listen_each", port))


def _serve(dsn: str, port: int, workers: int = 1) -> Sequence[str]:
    options = {"--dsn": dsn, "--port": str(port), "--workers": str(workers), "--max-behind": str(BEHIND)}
    words = [word for option in options.items() for word in option]
    return [sys.executable, "-m", "pgpubsub", "serve", "--public", "*", *words]


def _uvicorn(app: str, port: int) -> Sequence[str]:
    alike = ("--http", "httptools", "--loop", "asyncio", "--no-access-log", "--no-server-header")
    return [sys.executable, "-m", "uvicorn", f"bench.gateway.apps.{app}:app", "--port", str(port), *alike]


def _prepare_chat(connection: psycopg.Connection) -> None:
    from pg_sse import trigger_sql

    connection.execute(CHAT)
    trigger = trigger_sql("messages", key_column="room", channel="room_change", order_column="id", on=("insert",))
    connection.execute(trigger.encode())
