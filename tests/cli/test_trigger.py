"""`pgpubsub trigger`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub import triggers
from tests.cli.conftest import Outcome

Admin = psycopg.Connection[Any]
Command = Callable[..., Outcome]


@pytest.fixture
def table(admin: Admin, channel: str) -> Iterator[str]:
    """As PostgreSQL reads it."""
    table = f'"{channel} table"'
    admin.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, state text, note text)")
    yield table
    admin.execute(f"DROP TABLE {table}")


def installed(admin: Admin, table: str) -> list[triggers.Trigger]:
    return [one for one in triggers.installed(admin) if one.table[1] == table.strip('"')]


def test_install_tells_of_changes_and_drop_ends_it(
    command: Command, admin: Admin, dsn: str, table: str, channel: str
) -> None:
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(channel)
        assert command("trigger", "install", table, "--to", channel) == (0, "", "")
        admin.execute(f"INSERT INTO {table} VALUES (17)")
        event = pubsub.get_event(10)
        assert event is not None
        assert json.loads(event.payload)["key"] == {"id": 17}
        assert command("trigger", "drop", table) == (0, "", "")
        assert installed(admin, table) == []


def test_options_are_those_of_the_library(command: Command, admin: Admin, table: str) -> None:
    given = ["--on", "insert, update", "--column", "state", "--column", "note", "--old", "--when", "NEW.id > 3"]
    assert command("trigger", "install", table, "--to", "a", "--name", "other", *given, "--definer").status == 0
    (trigger,) = installed(admin, table)
    assert (trigger.name, trigger.on, trigger.columns) == ("other", ("insert", "update"), ("note", "state"))
    assert (trigger.old, trigger.when, trigger.definer) == (True, "NEW.id > 3", True)
    assert command("trigger", "drop", table, "--name", "other").status == 0
    assert installed(admin, table) == []


@pytest.mark.parametrize("level", ["row", "statement"])
def test_to_a_stream(command: Command, admin: Admin, table: str, stream: str, level: str) -> None:
    assert command("trigger", "install", table, "--to-stream", stream, "--level", level).status == 0
    admin.execute(f"INSERT INTO {table} VALUES (17)")
    assert '"key":{"id":17}' in command("stream", "read", stream).out


def test_sql_prints_what_install_would_run(command: Command, table: str) -> None:
    status, out, err = command("trigger", "sql", table, "--to", "orders", "--key-only", "--dsn", "host=nowhere.invalid")
    assert status == 64  # it needs no connection
    status, out, err = command("trigger", "sql", table, "--to", "orders", "--key-only")
    assert (status, err) == (0, "")
    assert out.strip() == triggers.sql(table, to="orders", key_only=True).strip()


def test_list(command: Command, table: str, stream: str, channel: str) -> None:
    command("trigger", "install", table, "--to", "orders", "--column", "state", "--when", "NEW.id > 3")
    command("trigger", "install", table, "--to-stream", stream, "--name", "other", "--level", "statement")
    lines = [line for line in command("trigger", "list").lines if channel in line.split("  ")[0]]
    name = table.strip('"')
    assert lines == [
        f"public.{name}  pgpubsub  -> channel orders  insert,update,delete  row  columns state  when NEW.id > 3",
        f"public.{name}  other  -> stream {stream}  insert,update,delete  statement",
    ] or lines == [
        f"public.{name}  other  -> stream {stream}  insert,update,delete  statement",
        f"public.{name}  pgpubsub  -> channel orders  insert,update,delete  row  columns state  when NEW.id > 3",
    ]
    found = [json.loads(line) for line in command("trigger", "list", "--json").lines]
    (to,) = [one["to"] for one in found if one["table"][1] == name and one["name"] == "other"]
    assert to == {"stream": stream, "schema": "pgpubsub"}


def test_list_shows_no_name_to_the_terminal_that_commands_it(command: Command, table: str, channel: str) -> None:
    assert command("trigger", "install", table, "--to", "a\x1b[2J", "--name", "b\x1b[31m").status == 0
    (line,) = [line for line in command("trigger", "list").lines if channel in line.split("  ")[0]]
    assert line.isprintable()
    assert r"  b\x1b[31m  -> channel a\x1b[2J  " in line


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ([], 64, "give --to CHANNEL or --to-stream STREAM"),
        (["--to", "a", "--to-stream", "b"], 64, "give --to CHANNEL or --to-stream STREAM"),
        (["--to", "a", "--on", "select"], 64, "not 'select'"),
        (["--to", "x" * 64], 64, "64 bytes"),
        (["--to", "a", "--column", "nothing"], 1, "nothing"),
        (["--to", "a", "--when", "NEW.nothing > 3"], 1, "nothing"),
    ],
)
def test_what_cannot_be_is_explained(command: Command, table: str, options: list[str], status: int, words: str) -> None:
    outcome = command("trigger", "install", table, *options)
    assert (outcome.status, outcome.out) == (status, "")
    assert words in " ".join(outcome.err.split())


def test_a_view_is_refused_with_the_reason(command: Command, admin: Admin, table: str, channel: str) -> None:
    admin.execute(f'CREATE VIEW "{channel} view" AS SELECT 1 AS one')
    status, _, err = command("trigger", "install", f'"{channel} view"', "--to", "a")
    admin.execute(f'DROP VIEW "{channel} view"')
    assert status == 1
    assert "view" in err
