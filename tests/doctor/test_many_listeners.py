"""The doctor's check for more listeners than is good."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import psycopg

from pgpubsub.doctor import Examined, Severity
from pgpubsub.doctor.checks.many_listeners import MANY, check
from pgpubsub.doctor.report import Fine
from pgpubsub.testing import TemporaryServer
from tests.contract.test_handler import eventually

Examine = Callable[..., Examined]


def test_many_listeners_are_counted_and_what_they_cost_is_measured(
    quiet_server: TemporaryServer, examined: Examine
) -> None:
    with ExitStack() as at_end:
        connections = [at_end.enter_context(psycopg.connect(quiet_server.dsn(), autocommit=True)) for _ in range(MANY)]
        for number, connection in enumerate(connections):
            connection.execute(f"LISTEN channel_{number}")
        (finding,) = examined(quiet_server.dsn()).findings
        assert finding.severity is Severity.WARNING
        assert f"{MANY} sessions listen in database 'postgres', and each NOTIFY wakes them all" in finding.cause
        assert "ms more than a statement that wakes nobody" in finding.cause
        assert "one Hub" in finding.cure
        assert finding.evidence["ms with NOTIFY"] > finding.evidence["ms without"] > 0
        assert finding.evidence["by role and address"] == [
            {"sessions": MANY, "role": "postgres", "address": "127.0.0.1"}
        ]
        elsewhere = examined(quiet_server.dsn(dbname="template1"))
        assert elsewhere.fine == ("0 sessions of database 'template1' can be seen to listen",)

        connections[0].close()
        fewer = (f"{MANY - 1} sessions of database 'postgres' can be seen to listen",)
        eventually(lambda: examined(quiet_server.dsn()).fine == fewer)


def test_one_listener_is_fine(quiet_server: TemporaryServer, examined: Examine) -> None:
    with psycopg.connect(quiet_server.dsn(), autocommit=True) as listener:
        listener.execute("LISTEN a")
        result = examined(quiet_server.dsn())
    assert result.fine == ("1 session of database 'postgres' can be seen to listen",)
    assert (result.findings, result.unseen) == ((), ())


def test_a_role_without_rights_knows_hubs_by_their_names_alone(
    quiet_server: TemporaryServer, examined: Examine
) -> None:
    with (
        psycopg.connect(quiet_server.dsn(), autocommit=True) as other,
        psycopg.connect(quiet_server.dsn(), application_name="pgpubsub listen 1@host"),
    ):
        other.execute("CREATE ROLE joe LOGIN")
        other.execute("LISTEN a")
        result = examined(quiet_server.dsn(user="joe"))
        assert result.fine == ("1 session of database 'postgres' can be seen to listen",)
        assert "listeners under names of their own of other roles: there are" in result.unseen[0]
        assert result.unseen[0].endswith('GRANT pg_monitor TO "joe"')
        other.execute("GRANT pg_monitor TO joe")
        other.execute("LISTEN a")
        result = examined(quiet_server.dsn(user="joe"))
        assert result.fine == ("2 sessions of database 'postgres' can be seen to listen",)
        assert not result.unseen


def test_from_postgresql_19_on_their_number_does_not_matter() -> None:
    patient: Any = SimpleNamespace(who=SimpleNamespace(version=190000))
    assert [*check(patient)] == [Fine("PostgreSQL 19 wakes only those who listen to the channel")]
