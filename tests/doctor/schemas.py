"""Schemas of streams, one for each test, and what is done to what is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import pgpubsub.streams
from pgpubsub.core.sql import quote_identifier

__all__ = ["Schema", "schema"]


class Schema:
    """One in which streams are installed."""

    def __init__(self, conn: psycopg.Connection[Any], name: str) -> None:
        self.conn = conn
        self.name = name

    def __str__(self) -> str:
        return self.name

    def do(self, statement: str, *parameters: Any) -> list[Any]:
        """Execute a statement, in which `{}.` is the schema, and return the rows that it has."""
        quoted = quote_identifier(self.name).replace("%", "%%" if parameters else "%")
        cursor = self.conn.execute(statement.replace("{}.", f"{quoted}."), parameters or None)
        return cursor.fetchall() if cursor.description is not None else []

    def age(self, interval: str) -> None:
        """Let all entries have been appended so long ago."""
        self.do("UPDATE {}.entry SET appended_at = clock_timestamp() - %s::interval", interval)
        self.do("UPDATE {}.parked SET appended_at = clock_timestamp() - %s::interval", interval)

    def new_group(self, stream: str, group: str) -> None:
        """One that begins at the oldest entry, and of which nobody is a member."""
        self.do("SELECT {}.join_group(%s, %s, 'nobody', 60, NULL, NULL, 0, '{}', NULL, NULL, 0)", stream, group)
        self.do("DELETE FROM {}.member WHERE name = 'nobody'")


@pytest.fixture
def schema(admin: psycopg.Connection[Any], new_channel: Callable[[], str]) -> Iterator[Schema]:
    """Streams of one's own, with a name that has to be quoted."""
    schema = Schema(admin, f'{new_channel()} "100 %s"')
    pgpubsub.streams.install(admin, schema.name)
    yield schema
    admin.execute(f"DROP SCHEMA {quote_identifier(schema.name)} CASCADE")
