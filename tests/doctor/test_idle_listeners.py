"""The doctor's check for listeners in a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from pgpubsub.doctor import Examined, Severity
from pgpubsub.doctor.checks import idle_listeners
from pgpubsub.testing import TemporaryServer
from tests.contract.test_handler import eventually

Examine = Callable[..., Examined]
Connection = psycopg.Connection[Any]


@pytest.fixture
def admin(quiet_server: TemporaryServer) -> Iterator[Connection]:
    with psycopg.connect(quiet_server.dsn(), autocommit=True) as connection:
        yield connection


def await_a_moment(admin: Connection, connection: Connection) -> None:
    """Until that has been in its transaction for longer than is worth nothing."""
    in_transaction = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND xact_start < now() - interval '1 s'"
    eventually(lambda: admin.execute(in_transaction, (connection.info.backend_pid,)).fetchone())


def test_a_listen_that_is_not_committed_is_found(
    quiet_server: TemporaryServer, admin: Connection, examined: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(quiet_server.dsn(application_name="forgetful")) as connection:  # which begins a transaction
        connection.execute("LISTEN a")
        await_a_moment(admin, connection)
        (finding,) = examined(quiet_server.dsn()).findings
        assert finding.severity is Severity.WARNING
        pid = connection.info.backend_pid
        assert f"1 listener is in a transaction, the one with pid {pid} for" in finding.cause
        assert "(idle in transaction)" in finding.cause
        assert "autocommit=True" in finding.cure
        (session,) = finding.evidence["sessions"]
        assert (session["pid"], session["application"], session["query"]) == (pid, "forgetful", "LISTEN a")
        monkeypatch.setattr(idle_listeners, "FOR_GOOD", 1.0)
        assert examined(quiet_server.dsn()).findings[0].severity is Severity.CRITICAL
        connection.commit()
        assert not examined(quiet_server.dsn()).findings


def test_a_hubs_listening_connection_is_known_by_its_name(
    quiet_server: TemporaryServer, admin: Connection, examined: Examine
) -> None:
    name = "pgpubsub listen 1@host"
    with (
        psycopg.connect(quiet_server.dsn(), application_name=name) as one,
        psycopg.connect(quiet_server.dsn()) as other,
    ):
        one.execute("SELECT 'no longer its LISTEN'")
        other.execute("SELECT 'no listener'")
        await_a_moment(admin, one)
        await_a_moment(admin, other)
        (finding,) = examined(quiet_server.dsn()).findings
        assert [session["pid"] for session in finding.evidence["sessions"]] == [one.info.backend_pid]


@pytest.mark.parametrize("statement", ["/* app='shop' */ LISTEN a", "-- app\n  listen a", "/***/ BEGIN; LISTEN a"])
def test_a_listen_is_known_after_comments_and_the_beginning_of_a_transaction(
    quiet_server: TemporaryServer, admin: Connection, examined: Examine, statement: str
) -> None:
    with (
        psycopg.connect(quiet_server.dsn(), application_name="pgpubsub doctor", autocommit=True) as one,
        psycopg.connect(quiet_server.dsn()) as other,
    ):
        if "BEGIN" not in statement:
            one.execute("BEGIN")
        one.execute(statement)
        other.execute("/* LISTEN a */ SELECT 'BEGIN; LISTEN a'")
        await_a_moment(admin, one)
        await_a_moment(admin, other)
        (finding,) = examined(quiet_server.dsn()).findings
        assert [session["pid"] for session in finding.evidence["sessions"]] == [one.info.backend_pid]


@pytest.fixture
def new_database(admin: Connection) -> Iterator[Callable[[str], str]]:
    """Makes databases that have a certain encoding."""
    names = []

    def new_database(encoding: str) -> str:
        names.append(f"in_{encoding.lower()}")
        admin.execute(
            f"CREATE DATABASE {names[-1]} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
        return names[-1]

    yield new_database
    for name in names:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize(("ours", "theirs"), [("UTF8", "LATIN1"), ("SQL_ASCII", "LATIN1"), ("LATIN1", "UTF8")])
def test_sessions_of_databases_with_another_encoding_hide_nothing(
    quiet_server: TemporaryServer,
    admin: Connection,
    examined: Examine,
    new_database: Callable[[str], str],
    ours: str,
    theirs: str,
) -> None:
    dsn = quiet_server.dsn(dbname=new_database(ours))
    role = "Jürgen".encode(theirs)
    with (
        psycopg.connect(quiet_server.dsn(dbname=new_database(theirs)), autocommit=True) as their,
        psycopg.connect(dsn) as one,
    ):
        their.execute('CREATE ROLE "Jürgen" LOGIN')
        # A connection of libpq itself, since its role's name is to be in their encoding.
        other = psycopg.pq.PGconn.connect(quiet_server.dsn(dbname=their.info.dbname).encode() + b" user=" + role)
        try:
            assert other.status == psycopg.pq.ConnStatus.OK, other.error_message
            other.exec_(b'BEGIN; LISTEN "' + role + b'"')
            one.execute("LISTEN a")
            eventually(lambda: len(the_evidence(examined(dsn))) == 2)
            sessions = the_evidence(examined(dsn))
        finally:
            other.finish()
            their.execute('DROP ROLE "Jürgen"')
    assert {session["database"]: session.get("query") for session in sessions} == {
        f"in_{ours.lower()}": "LISTEN a",
        f"in_{theirs.lower()}": None,
    }
    assert sorted(session["role"][:4] for session in sessions) == ["oid ", "post"]


def the_evidence(result: Examined) -> list[dict[str, Any]]:
    assert result.unseen == ()
    return [session for finding in result.findings for session in finding.evidence["sessions"]]


def test_statements_that_have_to_do_with_passwords_are_not_shown(
    quiet_server: TemporaryServer, admin: Connection, examined: Examine
) -> None:
    with psycopg.connect(quiet_server.dsn(), application_name="pgpubsub listen 1@host") as connection:
        connection.execute("ALTER USER postgres PASSWORD 'hunter2'")
        await_a_moment(admin, connection)
        (session,) = the_evidence(examined(quiet_server.dsn()))
        connection.rollback()
        assert session["pid"] == connection.info.backend_pid
    assert "query" not in session


def test_listeners_in_autocommit_mode_are_fine(
    quiet_server: TemporaryServer, admin: Connection, examined: Examine
) -> None:
    admin.execute("LISTEN a")
    result = examined(quiet_server.dsn())
    assert result.fine == ("no listener has been in a transaction for more than 1 s",)
    assert (result.findings, result.unseen) == ((), ())


def test_a_role_without_rights_is_told_what_it_does_not_see(
    quiet_server: TemporaryServer, admin: Connection, examined: Examine
) -> None:
    admin.execute("CREATE ROLE joe LOGIN")
    with psycopg.connect(quiet_server.dsn()) as connection:
        connection.execute("LISTEN a")
        await_a_moment(admin, connection)
        result = examined(quiet_server.dsn(user="joe"))
        assert not result.findings
        assert "listeners in a transaction of other roles: there are" in result.unseen[0]
        assert result.unseen[0].endswith('GRANT pg_monitor TO "joe"')
        admin.execute("GRANT pg_monitor TO joe")
        result = examined(quiet_server.dsn(user="joe"))
        assert (len(result.findings), result.unseen) == (1, ())


def test_a_role_sees_its_own_sessions_and_misses_nothing_where_there_are_no_others(
    quiet_server: TemporaryServer, admin: Connection, examined: Examine
) -> None:
    admin.execute("CREATE ROLE joe LOGIN")
    with (
        psycopg.connect(quiet_server.dsn(user="joe")) as connection,
        psycopg.connect(quiet_server.dsn(user="joe"), autocommit=True) as watching,
    ):
        connection.execute("LISTEN a")
        await_a_moment(admin, connection)
        admin.close()
        of_others = "SELECT count(*) FROM pg_stat_activity WHERE usename <> 'joe' AND datname IS NOT NULL"
        eventually(lambda: watching.execute(of_others).fetchone() == (0,))
        result = examined(quiet_server.dsn(user="joe"))
        assert (len(result.findings), result.unseen) == (1, ())
