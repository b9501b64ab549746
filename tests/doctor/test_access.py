"""Streams that belong to somebody else: what the doctor and `pgpubsub top` ask of them, and what they leave alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgpubsub.streams
from pgpubsub import doctor
from pgpubsub.testing import TemporaryServer
from tests.cli.top import sample
from tests.contract.streams import identifier, new_role

OF_STREAMS = ("schema", "groups", "retention", "dead-letters")

TAKE_OVER = """
CREATE FUNCTION pgpubsub.take_over() RETURNS uuid LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('is_superuser') = 'on' THEN
        EXECUTE format('COPY (SELECT 1) TO %L', current_setting('data_directory') || '/taken over');
    END IF;
    RETURN NULL;
END $$
"""


@pytest.fixture
def app(admin: psycopg.Connection[Any], channel: str) -> Iterator[str]:
    """A role without rights, and a database of the same name that belongs to it."""
    name = f"app {channel}"
    new_role(admin, name)
    admin.execute(f"CREATE DATABASE {identifier(name)} OWNER {identifier(name)}")
    yield name
    admin.execute(f"DROP DATABASE {identifier(name)} WITH (FORCE)")
    admin.execute(f"DROP ROLE {identifier(name)}")


@pytest.fixture
def shop(dsn: str, app: str) -> str:
    """As a superuser into the database of that role, which has installed streams and waits for somebody to look."""
    shop = make_conninfo(dsn, dbname=app)
    with psycopg.connect(make_conninfo(shop, user=app), autocommit=True) as conn:
        pgpubsub.streams.install(conn)
        conn.execute(TAKE_OVER)
        conn.execute(
            "CREATE OR REPLACE VIEW pgpubsub.native_birth AS"
            " SELECT token FROM pgpubsub.birth WHERE pgpubsub.take_over() IS NULL"
        )
    return shop


@pytest.fixture
def taken_over(admin: psycopg.Connection[Any]) -> Iterator[Callable[[], bool]]:
    """Whether code of the role without rights has run with those of a superuser."""
    row = admin.execute("SHOW data_directory").fetchone()
    assert row is not None
    file = Path(row[0]) / "taken over"
    yield file.exists
    file.unlink(missing_ok=True)


def test_a_superuser_does_not_run_what_somebody_without_powers_has_put_into_his_streams(
    shop: str, app: str, taken_over: Callable[[], bool]
) -> None:
    report = doctor.examine(shop)
    for check in OF_STREAMS:
        (why,) = report[check].unseen
        assert why.startswith(
            f"the streams in schema 'pgpubsub' belong to role {app!r}, whose functions and views would"
        )
        assert f"with the powers of role 'postgres': look as {app!r}, or as a role without powers" in why
        assert (report[check].fine, report[check].findings) == ((), ())
    assert not taken_over()
    report = doctor.examine(make_conninfo(shop, user=app))
    assert [report[check].unseen for check in OF_STREAMS] == [()] * 4


def test_nor_does_top(shop: str, app: str, taken_over: Callable[[], bool]) -> None:
    with psycopg.connect(make_conninfo(shop, user=app), autocommit=True) as conn:
        conn.execute("ALTER TABLE pgpubsub.stream RENAME TO its_stream")
        conn.execute(
            "CREATE VIEW pgpubsub.stream AS SELECT * FROM pgpubsub.its_stream WHERE pgpubsub.take_over() IS NULL"
        )
    found = sample("--dsn", shop)
    for part in ("streams", "groups"):
        assert found[part]["why"].startswith(f"the streams in schema 'pgpubsub' belong to role {app!r}")
    assert not taken_over()
    assert sample("--dsn", make_conninfo(shop, user=app))["streams"]["total"] == 0


def test_powers_that_were_laid_down_for_a_while_count(shop: str, app: str, taken_over: Callable[[], bool]) -> None:
    laid_down = make_conninfo(shop, options="-c role=" + app.replace(" ", "\\ "))
    assert "with the powers of role 'postgres'" in doctor.examine(laid_down)["schema"].unseen[0]
    assert not taken_over()


@pytest.mark.parametrize("power", ["CREATEROLE", "IN ROLE pg_execute_server_program", "IN ROLE postgres"])
def test_other_powers_count_too(
    shop: str, admin: psycopg.Connection[Any], channel: str, power: str, taken_over: Callable[[], bool]
) -> None:
    watcher = identifier(f"watcher {channel}")
    admin.execute(f"CREATE ROLE {watcher} LOGIN {power}")
    with psycopg.connect(shop, autocommit=True) as conn:
        conn.execute(f"GRANT USAGE ON SCHEMA pgpubsub TO {watcher}")
        conn.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA pgpubsub TO {watcher}")
    theirs = make_conninfo(shop, user=f"watcher {channel}")
    assert "belong to role" in doctor.examine(theirs)["schema"].unseen[0]
    with psycopg.connect(shop, autocommit=True) as conn:
        conn.execute(f"ALTER ROLE {watcher} NOCREATEROLE")
        conn.execute(f"REVOKE pg_execute_server_program, postgres FROM {watcher}")
        assert doctor.examine(theirs)["schema"].unseen == ()
        conn.execute(f"DROP OWNED BY {watcher}")
    admin.execute(f"DROP ROLE {watcher}")


def test_streams_in_the_schema_public_belong_to_the_databases_owner(dsn: str, app: str) -> None:
    shop = make_conninfo(dsn, dbname=app)
    with psycopg.connect(shop, autocommit=True) as conn:
        pgpubsub.streams.install(conn, "public")
        conn.execute("ALTER SCHEMA public OWNER TO pg_database_owner")
        assert "belong to role" in doctor.examine(shop, schema="public")["schema"].unseen[0]
        conn.execute(f"ALTER DATABASE {identifier(app)} OWNER TO postgres")
        assert doctor.examine(shop, schema="public")["schema"].unseen == ()


def test_nothing_is_written_into_the_servers_log_where_there_are_no_streams_or_no_rights(
    server: TemporaryServer,
) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute("CREATE ROLE joe LOGIN")
        logs = [file for file in server.directory.rglob("log*") if file.is_file()]
        assert any("database system is ready" in log.read_text() for log in logs)
        doctor.examine(server.dsn())
        sample("--dsn", server.dsn())
        pgpubsub.streams.install(conn)
        doctor.examine(server.dsn(user="joe"))
        sample("--dsn", server.dsn(user="joe"))
    assert [line for log in logs for line in log.read_text().splitlines() if "ERROR" in line] == []
