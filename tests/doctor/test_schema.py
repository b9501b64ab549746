"""The doctor's check of the version of the streams that are installed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgpubsub.streams
from pgpubsub.doctor import Examined, Finding, Severity
from pgpubsub.testing import TemporaryServer
from tests.contract.streams import identifier, new_role
from tests.doctor.schemas import Schema, schema

__all__ = ["schema"]


@pytest.fixture
def of_schema(dsn: str, schema: Schema, examined: Callable[..., Examined]) -> Callable[[], Examined]:
    """What comes of the check of this test's streams."""
    return lambda: examined(dsn, schema=schema.name)


def the_finding(found: Examined) -> Finding:
    (finding,) = found.findings
    assert finding.severity is Severity.CRITICAL
    assert (found.fine, found.unseen) == ((), ())
    return finding


def test_streams_of_this_version_are_fine(schema: Schema, of_schema: Callable[[], Examined]) -> None:
    found = of_schema()
    assert (found.findings, found.unseen) == ((), ())
    assert found.fine == (f"the streams in schema {schema.name!r} have version 1, which this library works with",)


def test_a_database_without_streams_is_fine(dsn: str, examined: Callable[..., Examined]) -> None:
    found = examined(dsn, schema="nothing here")
    assert (found.findings, found.unseen) == ((), ())
    assert found.fine == ("no streams are installed in schema 'nothing here'",)


def test_an_older_version_has_to_be_installed_anew(schema: Schema, of_schema: Callable[[], Examined]) -> None:
    schema.do("UPDATE {}.version SET number = 0, serves_from = 0")
    finding = the_finding(of_schema())
    assert "have version 0 and this pgpubsub needs 1, so that it refuses them" in finding.cause
    assert f"run `pgpubsub stream install` or pgpubsub.streams.install(conn, {schema.name!r})" in finding.cure
    pgpubsub.streams.install(schema.conn, schema.name)
    assert of_schema().findings == ()


def test_an_empty_table_of_versions_is_that_of_none(schema: Schema, of_schema: Callable[[], Examined]) -> None:
    schema.do("DELETE FROM {}.version")
    assert "have version 0" in the_finding(of_schema()).cause


def test_a_newer_version_that_does_not_serve_this_library_needs_a_newer_one(
    schema: Schema, of_schema: Callable[[], Examined]
) -> None:
    schema.do("INSERT INTO {}.version VALUES (3, 1)")
    assert of_schema().findings == ()
    schema.do("INSERT INTO {}.version VALUES (4, 2)")
    finding = the_finding(of_schema())
    assert "have version 4, which serves versions from 2 on; this pgpubsub has 1" in finding.cause
    assert "use a newer pgpubsub" in finding.cure


def test_streams_restored_from_a_dump_have_to_be_installed_once_more(
    server: TemporaryServer, examined: Callable[..., Examined]
) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        pgpubsub.streams.install(conn)
        conn.execute("SELECT pgpubsub.append('orders', '17')")
        conn.execute("CREATE DATABASE restored")
    dump: Any = subprocess.check_output([server.binaries / "pg_dump", server.dsn()])
    restored = server.dsn(dbname="restored")
    subprocess.run([server.binaries / "psql", "-q", restored], input=dump, check=True, stdout=subprocess.DEVNULL)
    finding = the_finding(examined(restored))
    assert "were restored from a dump, or copied from another server" in finding.cause
    assert "run `pgpubsub stream install` or pgpubsub.streams.install(conn) once, which repairs that" in finding.cure
    assert finding.evidence["appended in this cluster"] is False
    with psycopg.connect(restored) as conn:
        pgpubsub.streams.install(conn)
    assert examined(restored).findings == ()


def test_entries_from_another_server_have_to_be_repaired_too(schema: Schema, of_schema: Callable[[], Examined]) -> None:
    schema.do("SELECT {}.append('orders', '17')")
    schema.do("UPDATE {}.entry SET xid = '1000000000'")
    assert "copied from another server" in the_finding(of_schema()).cause


def test_a_role_without_rights_is_told_which_it_needs(
    dsn: str, schema: Schema, examined: Callable[..., Examined], channel: str
) -> None:
    role = f"nobody of {channel}"
    new_role(schema.conn, role)
    (unseen,) = examined(make_conninfo(dsn, user=role), schema=schema.name).unseen
    assert unseen.startswith(f"role {role!r} may not read the streams in schema {schema.name!r} (no USAGE on")
    grants = unseen.partition("): ")[2]
    schema.do(grants)
    assert len(examined(make_conninfo(dsn, user=role), schema=schema.name).fine) == 1
    schema.conn.execute(f"DROP OWNED BY {identifier(role)}")
    schema.conn.execute(f"DROP ROLE {identifier(role)}")
