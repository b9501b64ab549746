"""The doctor's check for a queue of notifications that fills."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from conftest import server_binaries
from pgpubsub.doctor import Examined, Severity
from pgpubsub.doctor.checks import queue
from pgpubsub.testing import TemporaryServer
from tests.contract.test_handler import eventually

Examine = Callable[..., Examined]
Connection = psycopg.Connection[Any]

small = pytest.mark.since_postgresql(17)
"""A queue that is soon full there is from this version on."""


@pytest.fixture(scope="module")
def small_server() -> Iterator[TemporaryServer]:
    settings = {"max_notify_queue_pages": "64"}
    with TemporaryServer(server_binaries(), tcp=True, settings=settings) as server:
        yield server


@pytest.fixture
def shared_queue(small_server: TemporaryServer) -> TemporaryServer:
    """The same for several tests, and empty. It does not matter to them when it has warned last."""
    with psycopg.connect(small_server.dsn(), autocommit=True) as admin:
        eventually(lambda: usage(admin) == 0)
        admin.execute('DROP ROLE IF EXISTS "Joe"')
    return small_server


@pytest.fixture
def admin(shared_queue: TemporaryServer) -> Iterator[Connection]:
    with psycopg.connect(shared_queue.dsn(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def culprit(shared_queue: TemporaryServer) -> Iterator[Connection]:
    """Listens, and is in a transaction."""
    with psycopg.connect(shared_queue.dsn()) as connection:
        listen_and_begin(connection)
        yield connection


def listen_and_begin(connection: Connection) -> None:
    connection.execute("LISTEN a")
    connection.commit()
    connection.execute("SELECT 1")


def usage(admin: Connection) -> float:
    row = admin.execute("SELECT pg_notification_queue_usage()").fetchone()
    assert row is not None
    return float(row[0])


def fill(admin: Connection, upto: float) -> None:
    while usage(admin) < upto:
        admin.execute("SELECT pg_notify('a', repeat('x', 7000))")


def await_suspicion(admin: Connection, culprit: Connection) -> None:
    """It is told from those that have just begun."""
    in_transaction = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND xact_start < now() - interval '1 s'"
    eventually(lambda: admin.execute(in_transaction, (culprit.info.backend_pid,)).fetchone())


def pids(result: Examined) -> list[int]:
    (finding,) = result.findings
    return [session["pid"] for session in finding.evidence["sessions"]]


@small
def test_below_half_those_who_may_be_the_reason_are_told(
    shared_queue: TemporaryServer, admin: Connection, culprit: Connection, examined: Examine
) -> None:
    fill(admin, 0.25)
    await_suspicion(admin, culprit)
    result = examined(shared_queue.dsn())
    (finding,) = result.findings
    assert finding.severity is Severity.WARNING
    assert re.search(r"the NOTIFY queue is 2\d % full; when it is full, every transaction that notifies", finding.cause)
    assert "the server says from half full on; likely one of those" in finding.cause
    assert pids(result) == [culprit.info.backend_pid]


@small
def test_from_half_on_the_server_names_who_holds_it(small_queue: TemporaryServer, examined: Examine) -> None:
    with (
        psycopg.connect(small_queue.dsn(), autocommit=True) as admin,
        psycopg.connect(small_queue.dsn()) as culprit,
    ):
        listen_and_begin(culprit)
        admin.execute("ALTER ROLE postgres SET client_min_messages = error")  # which would hide the server's warning
        fill(admin, 0.5)  # the first warning goes to this session, and the server waits five seconds with the next
        await_suspicion(admin, culprit)
        pid = culprit.info.backend_pid
        result = examined(small_queue.dsn())
        assert "the server tells at most every five seconds, in its log too; likely one of" in result.findings[0].cause
        assert pids(result) == [pid]

        named = f"The session with pid {pid} holds its tail, says the server"
        seen: list[Examined] = []

        def says() -> bool:
            seen.append(examined(small_queue.dsn()))
            return named in seen[-1].findings[0].cause

        eventually(says, 30)
        (finding,) = seen[-1].findings
        assert finding.severity is Severity.CRITICAL
        assert f"SELECT pg_terminate_backend({pid})" in finding.cure
        assert pids(seen[-1]) == [pid]


@small
def test_a_full_queue_is_called_full(
    shared_queue: TemporaryServer, admin: Connection, culprit: Connection, examined: Examine
) -> None:
    with pytest.raises(psycopg.errors.ProgramLimitExceeded):
        fill(admin, 2.0)
    (finding,) = examined(shared_queue.dsn()).findings
    assert finding.severity is Severity.CRITICAL
    assert "the NOTIFY queue is full: every transaction that notifies fails" in finding.cause


@small
def test_a_burst_is_fine_once_it_has_been_read(
    shared_queue: TemporaryServer,
    admin: Connection,
    culprit: Connection,
    examined: Examine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(seconds: float) -> None:
        culprit.commit()
        eventually(lambda: usage(admin) == 0)

    fill(admin, 0.5)
    monkeypatch.setattr(queue, "sleep", read)  # between the two looks
    assert examined(shared_queue.dsn()).fine == ("0.0 % of the NOTIFY queue is in use",)


@small
def test_a_queue_that_is_being_emptied_is_a_notice(
    shared_queue: TemporaryServer,
    admin: Connection,
    culprit: Connection,
    examined: Examine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(seconds: float) -> None:
        culprit.commit()
        eventually(lambda: usage(admin) < 0.3)

    fill(admin, 0.2)
    with psycopg.connect(shared_queue.dsn()) as slower:
        listen_and_begin(slower)
        fill(admin, 0.4)
        monkeypatch.setattr(queue, "sleep", read)
        (finding,) = examined(shared_queue.dsn()).findings
    assert finding.severity is Severity.NOTICE
    assert "% full, and being emptied; when it is full" in finding.cause


@small
def test_a_role_without_rights_is_told_what_it_does_not_see(
    shared_queue: TemporaryServer, admin: Connection, culprit: Connection, examined: Examine
) -> None:
    admin.execute('CREATE ROLE "Joe" LOGIN')
    fill(admin, 0.25)
    await_suspicion(admin, culprit)
    result = examined(shared_queue.dsn(user="Joe"))
    assert pids(result) == []
    assert result.findings[0].cause.endswith("; none that is stuck can be seen")
    assert "sessions that may hold the NOTIFY queue of other roles: there are 2 sessions" in result.unseen[0]
    assert result.unseen[0].endswith('GRANT pg_monitor TO "Joe"')
    admin.execute('GRANT pg_monitor TO "Joe"')
    result = examined(shared_queue.dsn(user="Joe"))
    assert (pids(result), result.unseen) == ([culprit.info.backend_pid], ())


def test_an_empty_queue_is_fine(dsn: str, examined: Examine) -> None:
    assert examined(dsn).fine == ("0.0 % of the NOTIFY queue is in use",)
