"""The same cases for every driver: each `kind` is one way to come to a connection."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import pgpubsub
from pgpubsub import AsyncHub, Hub, PubSub
from tests.contract.faces import HUB_KINDS, AnyHub, Covered, LoopInThread, new_loop
from tests.contract.sending import Foreign, Gate
from tests.contract.streams import AnyStream, install, open_stream

DRIVERS = {"psycopg3": "psycopg", "psycopg2": "psycopg2", "pg.DB": "pg", "pg.Connection": "pg"}
BROUGHT = list(DRIVERS)
KINDS = ["connect()", *BROUGHT]


def connect_with(kind: str, dsn: str) -> Any:
    """A driver's own connection, in autocommit mode."""
    if find_spec(DRIVERS[kind]) is None:
        pytest.skip(f"{DRIVERS[kind]} is not installed")
    if kind == "psycopg3":
        return psycopg.connect(dsn, autocommit=True)
    if kind == "psycopg2":
        import psycopg2

        conn = psycopg2.connect(dsn)
        conn.autocommit = True
        return conn
    import pg

    options = conninfo_to_dict(dsn)
    arguments: dict[str, Any] = {
        "dbname": options.get("dbname"),
        "host": options.get("host"),
        "port": int(options.get("port") or 5432),
        "user": options.get("user"),
        "passwd": options.get("password"),
    }
    return pg.DB(**arguments) if kind == "pg.DB" else pg.connect(**arguments)


def run_on(conn: Any, statement: str) -> None:
    """Run a statement of the user's own, with the driver's own means."""
    if hasattr(conn, "query"):
        conn.query(statement)
    elif isinstance(conn, psycopg.Connection):
        conn.execute(statement)
    else:
        conn.cursor().execute(statement)


@pytest.fixture
def connect_raw(dsn: str) -> Iterator[Callable[[str], Any]]:
    opened = []

    def connect(kind: str) -> Any:
        opened.append(connect_with(kind, dsn))
        return opened[-1]

    yield connect
    for conn in opened:
        try:
            conn.close()
        except Exception:
            pass


@pytest.fixture
def connect_pubsub(dsn: str, connect_raw: Callable[[str], Any]) -> Iterator[Callable[[str], PubSub]]:
    opened = []

    def connect(kind: str) -> PubSub:
        opened.append(pgpubsub.connect(dsn) if kind == "connect()" else PubSub(connect_raw(kind)))
        return opened[-1]

    yield connect
    for pubsub in opened:
        pubsub.close()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pubsub(kind: str, connect_pubsub: Callable[[str], PubSub]) -> PubSub:
    return connect_pubsub(kind)


@pytest.fixture
def other(dsn: str) -> Iterator[PubSub]:
    """Somebody else, who sends."""
    with pgpubsub.connect(dsn) as pubsub:
        yield pubsub


@pytest.fixture(scope="module")
def latin1(dsn: str) -> Iterator[str]:
    """A database that cannot express every text: there, the server refuses a LISTEN or a NOTIFY."""
    with database_in("LATIN1", dsn) as name:
        yield name


@pytest.fixture(scope="module")
def euc_jp(dsn: str) -> Iterator[str]:
    """A database in whose encoding a text may be longer than in UTF-8."""
    with database_in("EUC_JP", dsn) as name:
        yield name


@contextmanager
def database_in(encoding: str, dsn: str) -> Iterator[str]:
    """A database for a while."""
    name = f"{encoding.lower()} {os.getpid()}"
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(
            f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        yield name
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


# -- hubs


@pytest.fixture
def new_hub_of(dsn: str) -> Iterator[Callable[..., AnyHub]]:
    """Makes hubs of a kind. They are closed in the end."""
    hubs: list[AnyHub] = []
    loops: dict[str, LoopInThread] = {}

    def new_hub(kind: str, conninfo: Any = dsn, **keywords: Any) -> AnyHub:
        if kind == "Hub":
            hubs.append(Hub(conninfo, **keywords))
        else:
            if kind not in loops:
                loops[kind] = LoopInThread(new_loop(kind))
            hubs.append(Covered(AsyncHub(conninfo, **keywords), loops[kind]))
        return hubs[-1]

    yield new_hub
    for hub in hubs:
        hub.close(0)
    for loop in loops.values():
        loop.end()


@pytest.fixture(params=HUB_KINDS)
def hub_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def new_hub(hub_kind: str, new_hub_of: Callable[..., AnyHub]) -> Callable[..., AnyHub]:
    """Makes hubs."""
    return partial(new_hub_of, hub_kind)


@pytest.fixture
def hub(new_hub: Callable[..., AnyHub]) -> Iterator[AnyHub]:
    """A hub that is live."""
    with new_hub() as hub:
        yield hub


# -- sending


@pytest.fixture
def gate(dsn: str) -> Iterator[Gate]:
    """What stands before the server."""
    with Gate(dsn) as gate:
        yield gate


@pytest.fixture
def gated(gate: Gate, new_hub: Callable[..., AnyHub], dsn: str) -> Iterator[AnyHub]:
    """A hub that is live and sends through the gate."""
    with gate.hub(new_hub, dsn) as hub:
        yield hub


@pytest.fixture
def quiet(new_hub: Callable[..., AnyHub]) -> Iterator[AnyHub]:
    """A hub that sends nothing of its own."""
    with new_hub(heartbeat=None) as hub:
        yield hub


@pytest.fixture
def foreign(dsn: str, channel: str) -> Iterator[Foreign]:
    """Somebody else who listens."""
    with Foreign(dsn, channel) as foreign:
        yield foreign


# -- streams


@pytest.fixture(scope="session")
def installed(dsn: str) -> str:
    """Where streams are installed."""
    install(dsn)
    return dsn


@pytest.fixture
def stream(installed: str, hub: AnyHub, channel: str) -> AnyStream:
    """A stream of a hub that is live."""
    return open_stream(hub, channel)


@pytest.fixture(autouse=True)
def _nobody_watches_the_garbage_collector() -> None:
    """Hypothesis does, with a callback in which a signal handler that raises would be an error of nobody's."""
    gc.callbacks.clear()
