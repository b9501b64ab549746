"""What a group does while very many entries wait to come again: it looks at few of them, whether statistics say so."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgpubsub.core.slots import SLOTS
from pgpubsub.groups.statements import GroupStatements
from pgpubsub.streams.statements import as_array
from tests.contract.streams import identifier, install

MANY = 40_000
"""Entries of keys of their own, which are due in an hour, and as many of one key, which wait for the first."""

FEW = 400
"""Pages of 8 kB that may be looked at. All of them have more than a thousand."""

SCHEMA = f"backlog {os.getpid()}"


@pytest.fixture(scope="module", params=["ANALYZE", ""], ids=["with statistics", "without"])
def backlog(dsn: str, request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[Any]]:
    """A connection to where that is so."""
    install(dsn, SCHEMA)
    parked = f"{identifier(SCHEMA)}.parked"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET enable_seqscan = off")  # as sessions of streams have it
        connection.execute("SET jit = off")
        for key, due_at in (("'key ' || number", "now() + interval '1 hour'"), ("'line'", "NULL")):
            connection.execute(
                f"INSERT INTO {parked}"
                " (consumer_group, id, slot, key, payload, appended_at, attempts, together, due_at)"
                f" SELECT 5, nextval('{identifier(SCHEMA)}.entry_id'), number & 31, {key}, 'x', now(), 1, 1, {due_at}"
                f" FROM generate_series(1, {MANY}) AS number"
            )
        if request.param:
            connection.execute(f"ANALYZE {parked}")
        yield connection
        connection.execute(f"DROP SCHEMA {identifier(SCHEMA)} CASCADE")


def pages(connection: psycopg.Connection[Any], statement: str, parameters: Any = None) -> int:
    """How many it looks at."""
    query: Any = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {statement}"
    lines = [line for (line,) in connection.execute(query, parameters)]
    buffers = next(line for line in lines if "Buffers" in line)  # of the topmost node, which has those of all below
    return sum(int(number) for number in re.findall(r"(?:hit|read)=(\d+)", buffers))


@pytest.mark.parametrize("how", ["force_custom_plan", "force_generic_plan"])
def test_looking_for_what_is_due(backlog: psycopg.Connection[Any], how: str) -> None:
    backlog.execute(f"SET plan_cache_mode = {how}")
    parameters = {
        "group": "5",
        "slots": as_array(range(SLOTS)),
        "known": "{1,2}",
        "rows": "100",
        "bytes": "1000000",
        "but": ["key 1"],
    }
    assert pages(backlog, GroupStatements(SCHEMA).due, parameters) < FEW


def test_letting_the_next_of_a_key_be_due(backlog: psycopg.Connection[Any]) -> None:
    for key in ("key 7", "nobody's"):
        assert pages(backlog, f"SELECT {identifier(SCHEMA)}.promote(5, %s)", [[key]]) < FEW
