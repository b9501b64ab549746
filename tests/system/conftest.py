"""What stands beside or in front of a server: proxies, a PgBouncer, a standby."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from pgpubsub.testing import Proxy, TemporaryServer
from tests.system.pgbouncer import PgBouncer, PoolMode
from tests.system.standby import Standby


@pytest.fixture
def at_end() -> Iterator[ExitStack]:
    """What has to be closed after the test, the last first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def make_proxy(at_end: ExitStack) -> Callable[[TemporaryServer], Proxy]:
    return lambda server: at_end.enter_context(Proxy(server.dsn()))


@pytest.fixture
def make_pgbouncer(at_end: ExitStack) -> Callable[[TemporaryServer, PoolMode], PgBouncer]:
    return lambda server, pool_mode: at_end.enter_context(PgBouncer(server, pool_mode))


@pytest.fixture
def make_standby(at_end: ExitStack) -> Callable[[TemporaryServer], Standby]:
    return lambda server: at_end.enter_context(Standby(server))
