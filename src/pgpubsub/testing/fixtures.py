"""Fixtures for pytest: a PostgreSQL server for the whole run, a proxy that makes faults in front of it, a hub on the
server, and a server in memory.

In the `conftest.py` of your tests:

    pytest_plugins = ["pgpubsub.testing.fixtures"]

and then, in a test:

    def test_it_survives_a_reset(pgpubsub_proxy):
        application = start(pgpubsub_proxy.dsn())
        pgpubsub_proxy.reset()
        ...

To test on another PostgreSQL, override `pgpubsub_server` with a fixture of that name. All tests share the server's
database, so let each have channels of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgpubsub import Hub
from pgpubsub.testing import MemoryServer, Proxy, TemporaryServer

__all__ = ["pgpubsub_hub", "pgpubsub_memory_server", "pgpubsub_proxy", "pgpubsub_server"]


@pytest.fixture(scope="session")
def pgpubsub_server() -> Iterator[TemporaryServer]:
    """A `TemporaryServer` that listens on TCP too, for the whole run."""
    with TemporaryServer(tcp=True) as server:
        yield server


@pytest.fixture
def pgpubsub_proxy(pgpubsub_server: TemporaryServer) -> Iterator[Proxy]:
    """A `Proxy` in front of `pgpubsub_server`, for one test."""
    with Proxy(pgpubsub_server.dsn()) as proxy:
        yield proxy


@pytest.fixture
def pgpubsub_hub(pgpubsub_server: TemporaryServer) -> Iterator[Hub]:
    """A `Hub` on `pgpubsub_server`, live."""
    with Hub(pgpubsub_server.dsn()) as hub:
        yield hub


@pytest.fixture
def pgpubsub_memory_server() -> MemoryServer:
    """A `MemoryServer`: hubs without a database."""
    return MemoryServer()
