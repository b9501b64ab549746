"""The doctor's check for listeners that do not read."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from pgpubsub.doctor import Examined, Severity
from pgpubsub.doctor.checks import stuck_listeners
from pgpubsub.testing import TemporaryServer
from tests.contract.test_handler import eventually

Examine = Callable[..., Examined]
Connection = psycopg.Connection[Any]

COUNT = 3000
FLOOD = f"SELECT count(pg_notify('a', n || repeat('x', 7000))) FROM generate_series(1, {COUNT}) n"
"""21 MB, which no socket takes by itself."""


@pytest.fixture
def admin(quiet_server: TemporaryServer) -> Iterator[Connection]:
    with psycopg.connect(quiet_server.dsn(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def deaf(quiet_server: TemporaryServer, admin: Connection) -> Iterator[Connection]:
    """Listens and has much to read."""
    with psycopg.connect(quiet_server.dsn(), autocommit=True) as connection:
        connection.execute("LISTEN a")
        admin.execute(FLOOD)
        eventually(lambda: writes(admin, connection))
        yield connection


def writes(admin: Connection, deaf: Connection) -> bool:
    writing = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'ClientWrite'"
    return admin.execute(writing, (deaf.info.backend_pid,)).fetchone() is not None


def test_a_listener_that_does_not_read_is_named(
    quiet_server: TemporaryServer, deaf: Connection, examined: Examine
) -> None:
    (finding,) = examined(quiet_server.dsn()).findings
    assert finding.severity is Severity.WARNING
    assert f"1 listener (pid {deaf.info.backend_pid}) does not read, or slower than notifications" in finding.cause
    assert f"SELECT pg_terminate_backend({deaf.info.backend_pid})" in finding.cure
    (session,) = finding.evidence["sessions"]
    assert (session["state"], session["waits for"], session["query"]) == ("idle", "Client/ClientWrite", "LISTEN a")


def test_one_that_reads_within_the_looks_is_fine(
    quiet_server: TemporaryServer,
    admin: Connection,
    deaf: Connection,
    examined: Examine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(seconds: float) -> None:
        assert len(list(deaf.notifies(timeout=20, stop_after=COUNT))) == COUNT
        eventually(lambda: not writes(admin, deaf))

    monkeypatch.setattr(stuck_listeners, "sleep", read)  # between two looks
    result = examined(quiet_server.dsn())
    assert result.fine == ("no listener keeps the server waiting to write to it",)
    assert not result.findings


def test_a_session_that_takes_a_large_result_slowly_is_no_listener(
    quiet_server: TemporaryServer, admin: Connection, examined: Examine
) -> None:
    with psycopg.connect(quiet_server.dsn(), autocommit=True) as connection:
        statement = b"SELECT repeat('x', 7000)\0"  # whose result is all written when there is nothing left to execute
        message = b"Q" + (len(statement) + 4).to_bytes(4) + statement
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as its_socket:
            its_socket.setblocking(True)
            its_socket.sendall(message * COUNT)
        eventually(lambda: writes(admin, connection))
        (finding,) = examined(quiet_server.dsn()).findings
        assert finding.severity is Severity.NOTICE
        assert (
            f"1 session (pid {connection.info.backend_pid}) does not read, or slowly, what the server" in finding.cause
        )
        assert "may be the result of a statement" in finding.cause
        assert "pg_terminate_backend" not in finding.cure
        assert examined(quiet_server.dsn()).fine == ("no listener keeps the server waiting to write to it",)


def test_a_session_that_is_not_known_to_listen_counts_while_the_queue_is_in_use(
    quiet_server: TemporaryServer, admin: Connection, examined: Examine
) -> None:
    with psycopg.connect(quiet_server.dsn(), autocommit=True) as connection:
        connection.execute("LISTEN a")
        connection.execute("SELECT 'something else'")
        admin.execute(FLOOD)
        eventually(lambda: writes(admin, connection))
        (finding,) = examined(quiet_server.dsn()).findings
        assert finding.severity is Severity.WARNING
        assert f"1 session (pid {connection.info.backend_pid}) does not read" in finding.cause
        assert "and may hold notifications that are in the queue" in finding.cause


def test_listeners_that_wait_for_something_to_read_are_fine(
    quiet_server: TemporaryServer, admin: Connection, examined: Examine
) -> None:
    admin.execute("LISTEN a")
    result = examined(quiet_server.dsn())
    assert result.fine == ("no listener keeps the server waiting to write to it",)
    assert (result.findings, result.unseen) == ((), ())


def test_a_role_without_rights_is_told_what_it_does_not_see(
    quiet_server: TemporaryServer, admin: Connection, deaf: Connection, examined: Examine
) -> None:
    admin.execute("CREATE ROLE joe LOGIN")
    result = examined(quiet_server.dsn(user="joe"))
    assert not result.findings
    assert "listeners that do not read of other roles: there are" in result.unseen[0]
    assert result.unseen[0].endswith('GRANT pg_monitor TO "joe"')
    admin.execute("GRANT pg_monitor TO joe")
    result = examined(quiet_server.dsn(user="joe"))
    assert (len(result.findings), result.unseen) == (1, ())
