"""What the tests of triggers share: a table of one's own, and what is told of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest

import pgpubsub
import pgpubsub.streams
from pgpubsub import triggers
from tests.contract.faces import PATIENCE
from tests.contract.streams import identifier

__all__ = ["Admin", "Told", "admin", "essence", "failures_of", "insert", "quoted", "replace_table", "table", "told"]

Admin = psycopg.Connection[Any]
Told = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def admin(dsn: str) -> Iterator[Admin]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET client_min_messages = error")
        yield connection


@pytest.fixture
def table(admin: Admin, channel: str) -> Iterator[tuple[str, str]]:
    """A table of one's own, with a key and two columns."""
    name = f"table of {channel}"
    admin.execute(f"CREATE TABLE {identifier(name)} (id int PRIMARY KEY, state text, weight numeric)")
    yield "public", name
    admin.execute(f"DROP TABLE {identifier(name)} CASCADE")


@pytest.fixture
def told(dsn: str, channel: str) -> Iterator[Told]:
    """Returns what has been told on the channel since it was asked last."""
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(channel)

        def get() -> list[dict[str, Any]]:
            pubsub.notify(channel, "that is all")
            found = []
            while (event := pubsub.get_event(PATIENCE)) is not None and event.payload != "that is all":
                found.append(json.loads(event.payload))
            return found

        yield get


def quoted(table: tuple[str, str]) -> str:
    return ".".join(map(identifier, table))


def insert(admin: Admin, table: tuple[str, str], *rows: Sequence[Any]) -> None:
    for row in rows:
        values = ", ".join(["%s"] * len(row))
        admin.execute(f"INSERT INTO {quoted(table).replace('%', '%%')} VALUES ({values})", row)


def essence(change: dict[str, Any]) -> tuple[Any, ...]:
    """All but the table, the transaction and the time."""
    return tuple(change[part] for part in ("op", "key", "row", "old", "changed", "reduced"))


def replace_table(admin: Admin, name: str, columns: str) -> tuple[str, str]:
    """Make a table, without the one that had the name."""
    admin.execute(f"DROP TABLE IF EXISTS {identifier(name)} CASCADE")
    admin.execute(f"CREATE TABLE {identifier(name)} ({columns})")
    return "public", name


def failures_of(admin: Admin, table: tuple[str, str]) -> list[int]:
    """What the table's triggers have counted."""
    return [one.failures for one in triggers.installed(admin) if one.table == table]
