"""How a table's changes are told: by whose trigger, if by any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

import pgpubsub.streams
from bench.ground import QUEUE
from pgpubsub import triggers

__all__ = ["Way", "by_hand", "not_at_all", "of_0_0_5", "to_channel", "to_stream"]

Way = Callable[[psycopg.Connection[Any], str], object]
"""Makes triggers on a table of this name."""

CHANNEL = "bench_changes"

BY_HAND = """
CREATE OR REPLACE FUNCTION tell_by_hand() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('bench_changes', json_build_object('op', TG_OP, 'row', NEW)::text);
    RETURN NULL;
END $$
"""

OF_0_0_5 = """
CREATE OR REPLACE FUNCTION tables_notify_func() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    payload text;
BEGIN
    SELECT row_to_json(its)::text INTO payload FROM (SELECT NEW.*, TG_OP) AS its;
    PERFORM pg_notify(TG_TABLE_NAME::text, payload);
    RETURN NULL;
END $$
"""


def not_at_all(connection: psycopg.Connection[Any], table: str) -> None:
    """No trigger."""


def by_hand(connection: psycopg.Connection[Any], table: str) -> None:
    """As one writes it who knows that rows are short."""
    connection.execute(BY_HAND)
    _create(connection, table, "tell_by_hand")


def of_0_0_5(connection: psycopg.Connection[Any], table: str) -> None:
    """That of pgpubsub 0.0.5, which does the same in its own way."""
    connection.execute(OF_0_0_5)
    _create(connection, table, "tables_notify_func")


def to_channel(connection: psycopg.Connection[Any], table: str, *, level: Any = "row") -> None:
    """Ours."""
    triggers.install(connection, table, to=CHANNEL, level=level, on=["insert", "update"])


def to_stream(connection: psycopg.Connection[Any], table: str, *, level: Any = "row", wake: Any = "poll") -> None:
    """Ours, to a stream."""
    pgpubsub.streams.create(connection, f"{QUEUE} {wake}", wake=wake)
    triggers.install(connection, table, to=triggers.stream(f"{QUEUE} {wake}"), level=level, on=["insert", "update"])


def _create(connection: psycopg.Connection[Any], table: str, function: str) -> None:
    statement = f"CREATE TRIGGER tell AFTER INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()"
    connection.execute(statement.encode())
