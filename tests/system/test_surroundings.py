"""What the tests put around a server is what it claims to be: a port, PgBouncer, a standby."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pgpubsub.testing import TemporaryServer
from tests.system.pgbouncer import PgBouncer, PoolMode
from tests.system.standby import Standby

MakePgBouncer = Callable[[TemporaryServer, PoolMode], PgBouncer]
MakeStandby = Callable[[TemporaryServer], Standby]


def connect(dsn: str) -> psycopg.Connection[Any]:
    return psycopg.connect(dsn, autocommit=True)


def heard(listener: psycopg.Connection[Any], count: int) -> list[str]:
    return [notify.payload for notify in listener.notifies(timeout=20, stop_after=count)]


def test_a_server_that_is_stopped_keeps_its_port(server: TemporaryServer) -> None:
    server.stop()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        connect(server.dsn())
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", server.port))
    server.start()
    connect(server.dsn()).close()


def test_a_session_pooler_forwards_notifications(
    session_server: TemporaryServer, make_pgbouncer: MakePgBouncer
) -> None:
    pooler = make_pgbouncer(session_server, "session")
    with connect(pooler.dsn()) as listener, connect(pooler.dsn()) as sender:
        listener.execute("LISTEN channel")
        sender.execute("NOTIFY channel, 'payload'")
        assert heard(listener, 1) == ["payload"]


def test_a_transaction_pooler_does_not(session_server: TemporaryServer, make_pgbouncer: MakePgBouncer) -> None:
    pooler = make_pgbouncer(session_server, "transaction")
    with (
        connect(pooler.dsn()) as listener,
        connect(pooler.dsn()) as other,
        connect(session_server.dsn()) as direct,
    ):
        listener.execute("LISTEN channel")
        direct.execute("LISTEN channel")
        for number in range(10):
            direct.execute(f"NOTIFY channel, '{number}'")
            # The very backend that listens has answered since, so it has sent the notification too, to whomever.
            assert other.execute("SELECT pg_listening_channels()").fetchone() == ("channel",)
        assert heard(direct, 10) == [str(number) for number in range(10)]
        assert select.select([listener], [], [], 0)[0] == []
        assert list(listener.notifies(timeout=0)) == []


def test_a_pooler_that_is_left_has_gone(session_server: TemporaryServer, make_pgbouncer: MakePgBouncer) -> None:
    with PgBouncer(session_server, "session") as pooler, connect(pooler.dsn()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="refused"):
        connect(pooler.dsn())


def test_a_standby_follows_its_primary_until_it_is_promoted(
    session_server: TemporaryServer, make_standby: MakeStandby
) -> None:
    standby = make_standby(session_server)
    with connect(session_server.dsn()) as primary, connect(standby.dsn()) as reader:
        primary.execute("CREATE TABLE followed AS SELECT 42 AS number")
        standby.catch_up()
        assert reader.execute("SELECT number FROM followed").fetchone() == (42,)
        assert reader.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            reader.execute("DELETE FROM followed")
        standby.promote()
        assert reader.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
        reader.execute("DELETE FROM followed")
        assert primary.execute("SELECT number FROM followed").fetchone() == (42,)
        primary.execute("DROP TABLE followed")
