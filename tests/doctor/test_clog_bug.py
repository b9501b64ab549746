"""The doctor's check for servers in which LISTEN can fail after VACUUM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from pgpubsub import doctor
from pgpubsub.doctor import Examined, Severity
from pgpubsub.doctor.checks import clog_bug
from pgpubsub.doctor.report import Finding
from pgpubsub.testing import TemporaryServer
from tests.system.older import packaged_binaries

Examine = Callable[..., Examined]

TRANSACTIONS = 1_100_000
"""More than a segment of the commit log has, of which VACUUM removes whole ones."""


@pytest.fixture(scope="module")
def old_server() -> Iterator[TemporaryServer]:
    """PostgreSQL 16.2."""
    binaries = packaged_binaries()
    if not binaries:
        pytest.skip("the package pgserver is not installed; it has builds for Python up to 3.12")
    with TemporaryServer(binaries[0], tcp=True, settings={"autovacuum": "off"}) as server:
        yield server


def test_an_old_release_is_named_with_the_one_to_upgrade_to(old_server: TemporaryServer, examined: Examine) -> None:
    (finding,) = examined(old_server.dsn()).findings
    assert finding.severity is Severity.WARNING
    assert "PostgreSQL 16.2 has a bug by which, after a VACUUM, LISTEN may fail" in finding.cause
    assert "upgrade to PostgreSQL 16.12 or newer" in finding.cure
    assert finding.evidence == {"server_version_num": 160002, "mended in": "16.12"}


def test_a_listen_that_fails_is_told_and_cured_as_it_says(old_server: TemporaryServer) -> None:
    with psycopg.connect(old_server.dsn(), autocommit=True) as admin:
        lose_the_record_of_a_notification(old_server, admin)
        with pytest.raises(psycopg.errors.UndefinedFile, match="could not access status of transaction"):
            admin.execute("LISTEN a")
        (finding,) = doctor.examine(old_server.dsn())["pooler"].findings
        assert finding.severity is Severity.CRITICAL
        assert "LISTEN fails: could not access status of transaction" in finding.cause
        assert "SELECT pg_notification_queue_usage() has the server forget" in finding.cure
        admin.execute("SELECT pg_notification_queue_usage()")
        admin.execute("LISTEN a")


def lose_the_record_of_a_notification(server: TemporaryServer, admin: psycopg.Connection[Any]) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as listener:
        listener.execute("LISTEN a")  # without anybody, nothing comes into the queue
        admin.execute("NOTIFY a")
        assert list(listener.notifies(timeout=20, stop_after=1))
    admin.execute("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
    admin.execute(
        "CREATE PROCEDURE use_transactions(number int) LANGUAGE plpgsql AS $$ BEGIN"
        " FOR i IN 1..number LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
    )
    admin.execute("SET synchronous_commit = off")
    admin.execute("CALL use_transactions(%s)", (TRANSACTIONS,))
    for database in ("template0", "template1", "postgres"):
        with psycopg.connect(server.dsn(dbname=database), autocommit=True) as connection:
            connection.execute("VACUUM FREEZE")


@pytest.mark.parametrize(
    ("version", "mended_in"),
    [
        (180001, "18.2"),
        (180002, None),
        (170007, "17.8"),
        (170008, None),
        (160011, "16.12"),
        (150015, "15.16"),
        (140020, "14.21"),
        (140021, None),
        (130023, "14.21"),
        (190000, None),
    ],
)
def test_which_releases_have_it(version: int, mended_in: str | None) -> None:
    patient: Any = SimpleNamespace(who=SimpleNamespace(version=version, release="this"))
    (result,) = clog_bug.check(patient)
    assert isinstance(result, Finding) is (mended_in is not None)
    if isinstance(result, Finding):
        assert result.evidence["mended in"] == mended_in


def test_a_new_release_is_fine(dsn: str, examined: Examine) -> None:
    result = examined(dsn)
    assert not result.findings
    assert "keeps transactions that wait in the NOTIFY queue readable" in result.fine[0]
