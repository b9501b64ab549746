"""Streams and groups of a role, or in a database, with settings of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.contract.faces import PATIENCE, AnyHub
from tests.contract.groups import administer, consume, info, process
from tests.contract.sending import words
from tests.contract.streams import KINDS, AnyStream, backends, everything, identifier, open_stream

Admin = psycopg.Connection[Any]


@pytest.fixture(params=KINDS)
def hub_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def set_for_role(admin: Admin, installed: str, channel: str) -> Iterator[Callable[..., str]]:
    """The address for a role with these settings."""
    role = identifier(f"role of {channel}")
    admin.execute(f"CREATE ROLE {role} SUPERUSER LOGIN")

    def set_for_role(**settings: str) -> str:
        for name, value in settings.items():
            admin.execute(f"ALTER ROLE {role} SET {name} = '{value}'")
        return make_conninfo(installed, user=f"role of {channel}")

    yield set_for_role
    admin.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize(
    "settings",
    [
        {"datestyle": "SQL, DMY", "timezone": "Asia/Kolkata"},
        {"datestyle": "German"},
        {"datestyle": "Postgres, MDY"},
        {"array_nulls": "off"},
    ],
    ids=str,
)
def test_values_are_written_and_read_as_ever(
    new_hub: Callable[..., AnyHub], set_for_role: Callable[..., str], channel: str, settings: dict[str, str]
) -> None:
    with new_hub(set_for_role(**settings)) as hub:
        stream = open_stream(hub, channel)
        stream.append_many(words(3))
        moments = [entry.appended_at for entry in everything(stream)]
        assert all(timedelta(0) <= datetime.now(UTC) - moment < timedelta(minutes=1) for moment in moments)
        process(stream, "billing", _refuse, follow=False, attempts=2, backoff=0)
        assert [letter.entry.appended_at for letter in administer(stream, "dead", "billing")] == moments
        administer(stream, "redrive", "billing")
        with consume(stream, "billing") as consumer:
            consumer.get(PATIENCE).fail("no")
            assert info(stream, "billing").held_up[0].due_at > moments[-1]


def _refuse(entry: Any) -> None:
    raise ValueError(entry)


def test_connections_that_are_idle_are_not_ended(
    stream: AnyStream, new_hub: Callable[..., AnyHub], set_for_role: Callable[..., str], admin: Admin
) -> None:
    with new_hub(set_for_role(idle_session_timeout="1s")) as hub:
        its = open_stream(hub, stream.name)
        with its.read() as reader, consume(its, "billing"):
            its.append("1")
            assert reader.get(PATIENCE).payload == "1"
            before = backends(admin, "read")
            admin.execute("SELECT pg_sleep(2)")  # twice as long as that
            assert {*before} <= {*backends(admin, "read")}, "there may be more by now"
