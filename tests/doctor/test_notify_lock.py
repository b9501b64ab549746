"""The doctor's check for transactions that wait for each other's NOTIFY."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from pgpubsub import doctor
from pgpubsub.doctor import Examined, Severity
from pgpubsub.testing import TemporaryServer
from tests.contract.test_handler import eventually
from tests.system.commits import held_up_commits

Examine = Callable[..., Examined]
Connection = psycopg.Connection[Any]

WRITE_AND_NOTIFY = "WITH row AS (INSERT INTO t VALUES (1)) SELECT pg_notify('a', '')"


@pytest.fixture
def admin(quiet_server: TemporaryServer) -> Iterator[Connection]:
    with psycopg.connect(quiet_server.dsn(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def holder(quiet_server: TemporaryServer, admin: Connection) -> Iterator[Connection]:
    """Commits for ever: it waits for a standby that there is not. Another waits for its lock."""
    admin.execute("CREATE TABLE IF NOT EXISTS t (number int)")
    with (
        psycopg.connect(quiet_server.dsn(), autocommit=True) as one,
        psycopg.connect(quiet_server.dsn(), autocommit=True) as other,
        ThreadPoolExecutor(2) as pool,
        held_up_commits(quiet_server.dsn()),
    ):
        pool.submit(one.execute, WRITE_AND_NOTIFY)
        eventually(lambda: waits(admin, one, "SyncRep"))
        pool.submit(other.execute, WRITE_AND_NOTIFY)
        eventually(lambda: waits(admin, other, "object"))
        yield one


def waits(admin: Connection, connection: Connection, what: str) -> bool:
    waiting = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = %s"
    return admin.execute(waiting, (connection.info.backend_pid, what)).fetchone() is not None


def test_who_holds_the_lock_and_what_for_is_told(quiet_server: TemporaryServer, holder: Connection) -> None:
    report = doctor.examine(quiet_server.dsn())
    (finding,) = report["notify-lock"].findings
    assert finding.severity is Severity.WARNING
    assert "at 8 of 8 looks somebody waited for the lock" in finding.cause
    assert f"up to 1 at once, all the time for pid {holder.info.backend_pid}, which itself waited for" in finding.cause
    assert "wake='poll'" in finding.cure
    assert finding.evidence["holders"] == [holder.info.backend_pid]
    assert finding.evidence["holders wait for"] == {"IPC/SyncRep": 8}
    assert finding.evidence["statements"] == [WRITE_AND_NOTIFY]
    assert "held up; see notify-lock" in report["pooler"].unseen[0]
    assert report.seconds < 2


def test_a_role_without_rights_sees_the_lock_and_not_what_for(
    quiet_server: TemporaryServer, admin: Connection, holder: Connection, examined: Examine
) -> None:
    admin.execute("SET synchronous_commit = local")
    admin.execute("CREATE ROLE joe LOGIN")
    result = examined(quiet_server.dsn(user="joe"))
    (finding,) = result.findings
    assert f"all the time for pid {holder.info.backend_pid}" in finding.cause
    assert (finding.evidence["holders wait for"], finding.evidence["statements"]) == ({}, [])
    assert "what those do who hold the lock of NOTIFY or wait for it, of other roles" in result.unseen[0]
    assert result.unseen[0].endswith('GRANT pg_monitor TO "joe"')
    admin.execute("GRANT pg_monitor TO joe")
    result = examined(quiet_server.dsn(user="joe"))
    assert result.findings[0].evidence["holders wait for"] == {"IPC/SyncRep": 8}
    assert not result.unseen


def test_a_session_that_notifies_without_end_is_fine(
    quiet_server: TemporaryServer, admin: Connection, examined: Examine
) -> None:
    stop = threading.Event()

    def notify() -> None:
        while not stop.is_set():
            admin.execute("NOTIFY a")

    thread = threading.Thread(target=notify)
    thread.start()
    try:
        result = examined(quiet_server.dsn())
    finally:
        stop.set()
        thread.join()
    assert result.fine == ("somebody waited for the lock of NOTIFY at 0 of 5 looks",)
    assert (result.findings, result.unseen) == ((), ())


NOTIFY_WITHOUT_END = """
CREATE OR REPLACE PROCEDURE notify_without_end() LANGUAGE plpgsql AS $$
BEGIN LOOP PERFORM pg_notify('a', ''); COMMIT; END LOOP; END $$
"""


def test_many_who_do_nothing_but_notify_are_a_notice(
    quiet_server: TemporaryServer, admin: Connection, examined: Examine
) -> None:
    admin.execute(NOTIFY_WITHOUT_END)
    with ExitStack() as at_end:
        pool = at_end.enter_context(ThreadPoolExecutor(8))
        connections = [at_end.enter_context(psycopg.connect(quiet_server.dsn(), autocommit=True)) for _ in range(8)]
        calls = [pool.submit(connection.execute, "CALL notify_without_end()") for connection in connections]
        found: list[Any] = []

        def finds() -> bool:
            found[:] = examined(quiet_server.dsn()).findings
            return bool(found)

        eventually(finds)
        for connection in connections:
            admin.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        for call in calls:
            assert isinstance(call.exception(), psycopg.OperationalError)
    (finding,) = found
    assert finding.severity is Severity.NOTICE
    assert "while those who held it waited for nothing: so many notifications are sent" in finding.cause
    assert "send fewer, or several in one transaction" in finding.cure
    assert "Lock/object" not in finding.evidence["holders wait for"]
