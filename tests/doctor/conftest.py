"""What the tests of the doctor share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import pgpubsub.streams
from conftest import server_binaries
from pgpubsub import doctor
from pgpubsub.doctor import Examined
from pgpubsub.testing import TemporaryServer
from tests.contract.test_handler import eventually
from tests.system.standby import Standby


@pytest.fixture
def examined(request: pytest.FixtureRequest) -> Callable[..., Examined]:
    """What comes of the check after which the test's module is called, such as `test_idle_listeners`."""
    name = request.module.__name__.rpartition(".test_")[2].replace("_", "-")

    def examined(conninfo: str, **keywords: Any) -> Examined:
        return doctor.examine(conninfo, **keywords)[name]

    return examined


@pytest.fixture(scope="session")
def shared_server() -> Iterator[TemporaryServer]:
    settings = {"max_prepared_transactions": "2"}
    with TemporaryServer(server_binaries(), tcp=True, settings=settings) as server:
        yield server


@pytest.fixture
def quiet_server(shared_server: TemporaryServer) -> TemporaryServer:
    """A server on which there are no sessions but a test's own, and no role `joe`; but what other tests have left."""
    others = "SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    with psycopg.connect(shared_server.dsn(), autocommit=True) as admin:
        eventually(lambda: admin.execute(others).fetchone() is None)
        admin.execute("DROP ROLE IF EXISTS joe")
    return shared_server


@pytest.fixture(scope="session")
def standby() -> Iterator[Standby]:
    """A standby with a stream that has max_age and a group."""
    with (
        TemporaryServer(server_binaries(), tcp=True) as server,
        psycopg.connect(server.dsn(), autocommit=True) as conn,
    ):
        pgpubsub.streams.install(conn)
        pgpubsub.streams.create(conn, "orders", max_age=60)
        conn.execute("SELECT pgpubsub.join_group('orders', 'billing', 'one', 60, NULL, NULL, 0, '{}', NULL, NULL, 0)")
        with Standby(server) as standby:
            yield standby
