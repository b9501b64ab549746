"""What stands beside or in front of a server: proxies, a PgBouncer, a standby."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pgpubsub import AsyncHub, Hub
from pgpubsub.testing import Proxy, TemporaryServer
from tests.contract.faces import HUB_KINDS, AnyHub, Covered, LoopInThread, new_loop
from tests.system.pgbouncer import PgBouncer, PoolMode
from tests.system.standby import Standby
from tests.system.streams import clear, install


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


@pytest.fixture(params=HUB_KINDS)
def hub_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def new_hub(hub_kind: str, at_end: ExitStack) -> Callable[..., AnyHub]:
    """Makes hubs. They are closed in the end."""
    loop = LoopInThread(new_loop(hub_kind))
    at_end.callback(loop.end)

    def new_hub(conninfo: str, **keywords: Any) -> AnyHub:
        hub = Hub(conninfo, **keywords) if hub_kind == "Hub" else Covered(AsyncHub(conninfo, **keywords), loop)
        at_end.callback(hub.close, 0)
        return hub

    return new_hub


MANY = {"max_connections": "150", "max_prepared_transactions": "100"}
"""Settings of a server for many writers, and of its standbys."""


@pytest.fixture(scope="session")
def one_stream_server(session_server: TemporaryServer) -> Iterator[TemporaryServer]:
    with TemporaryServer(session_server.binaries, tcp=True, settings=MANY) as server:
        yield server


@pytest.fixture
def stream_server(one_stream_server: TemporaryServer) -> TemporaryServer:
    """A server for many writers, to be stopped, crashed, frozen and configured, with new streams; those in the stream
    "quiet" wake nobody."""
    one_stream_server.start()
    clear(one_stream_server.dsn())
    install(one_stream_server.dsn(), "quiet")
    return one_stream_server


@pytest.fixture
def make_stream_standby(stream_server: TemporaryServer, at_end: ExitStack) -> Callable[..., Standby]:
    """Makes standbys of that."""
    return lambda source=None: at_end.enter_context(Standby(stream_server, source, MANY))
