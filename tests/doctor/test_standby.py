"""The doctor's check for a standby, and what the other checks of the server say there."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from pgpubsub import doctor
from pgpubsub.doctor import Examined, Severity
from pgpubsub.testing import TemporaryServer
from tests.contract.test_handler import eventually
from tests.system.standby import Standby


def test_a_standby_is_named_with_what_to_do(server: TemporaryServer) -> None:
    with Standby(server) as standby, psycopg.connect(standby.dsn(), autocommit=True) as admin:
        eventually(lambda: admin.execute("SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'").fetchone())
        report = doctor.examine(standby.dsn())
    (finding,) = report["standby"].findings
    assert finding.severity is Severity.CRITICAL
    assert "is a standby: it refuses LISTEN and NOTIFY" in finding.cause
    assert f"this one follows 127.0.0.1:{server.port}" in finding.cure
    assert "target_session_attrs=read-write" in finding.cure
    assert finding.evidence["pg_is_in_recovery()"] is True
    assert report["pooler"].fine == ("no pooler stands between; on a standby nothing can be listened to",)
    assert report["many-listeners"].fine == ("nobody can listen on a standby",)
    assert report["notify-lock"].fine == ("nobody can notify on a standby",)
    for check in ("queue", "stuck-listeners", "idle-listeners"):
        assert not report[check].findings
        assert not report[check].unseen


def test_a_standby_is_recognised_whatever_isolation_a_role_wants(server: TemporaryServer) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute("ALTER ROLE postgres SET default_transaction_isolation = serializable")
    with Standby(server) as standby:
        report = doctor.examine(standby.dsn())
    assert "is a standby" in report["standby"].findings[0].cause


@pytest.mark.skipif(psycopg.pq.version() < 160000, reason="libpq knows load_balance_hosts from version 16 on")
def test_two_connections_that_lead_to_different_servers_are_one_finding(
    server: TemporaryServer, examined: Callable[..., Examined]
) -> None:
    with Standby(server) as standby:
        both = f"host=127.0.0.1,127.0.0.1 port={server.port},{standby.server.port} load_balance_hosts=random"
        found = (examined(f"{both} user=postgres dbname=postgres") for _ in range(60))
        finding = next(one for each in found for one in each.findings if "different servers" in one.cause)
    assert finding.severity is Severity.CRITICAL
    assert "(a primary and a standby)" in finding.cause
    assert "target_session_attrs=read-write, and without load_balance_hosts=random" in finding.cure
    ports = {one["port"]: one["pg_is_in_recovery()"] for one in finding.evidence["connections"]}
    assert ports == {server.port: False, standby.server.port: True}


def test_a_primary_is_fine(dsn: str, examined: Callable[..., Examined]) -> None:
    assert examined(dsn).fine == ("the server is a primary",)
