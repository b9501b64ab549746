"""What all tests, and the examples in docstrings, share: one server a session, and names of one's own on it."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings

import pgpubsub
import pgpubsub.streams
from pgpubsub.testing import TemporaryServer
from pgpubsub.testing.server import find_binaries

# How long an example takes depends on what else the machine does.
settings.register_profile("pgpubsub", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pgpubsub")

REQUIRE_ALL = os.environ.get("PGPUBSUB_REQUIRE_ALL") == "1"


def server_binaries() -> Path | None:
    """Which PostgreSQL to test on: PGPUBSUB_TEST_BINARIES is the directory with `initdb` and `postgres`."""
    directory = os.environ.get("PGPUBSUB_TEST_BINARIES")
    return Path(directory) if directory else None


@pytest.fixture(scope="session")
def dsn() -> Iterator[str]:
    """A server that is only connected to: PGPUBSUB_TEST_DSN, or one of our own."""
    external = os.environ.get("PGPUBSUB_TEST_DSN")
    if external:
        yield external
        return
    # By itself it does nothing: there are tests that count its transactions, of which autovacuum has some.
    with TemporaryServer(server_binaries(), tcp=True, settings={"autovacuum": "off"}) as server:
        yield server.dsn()


@pytest.fixture(scope="session")
def session_server() -> Iterator[TemporaryServer]:
    """A server that tests may reconfigure, but not stop."""
    with TemporaryServer(server_binaries(), tcp=True, settings={"max_connections": "20"}) as server:
        yield server


@pytest.fixture
def server() -> Iterator[TemporaryServer]:
    """A server that belongs to one test, to be stopped, crashed and frozen."""
    with TemporaryServer(server_binaries(), tcp=True) as server:
        yield server


@pytest.fixture
def small_queue() -> Iterator[TemporaryServer]:
    """A server whose notification queue is soon full. From PostgreSQL 17 on."""
    with TemporaryServer(server_binaries(), tcp=True, settings={"max_notify_queue_pages": "64"}) as server:
        yield server


@pytest.fixture
def admin(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection beside those under test."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


_numbers = itertools.count(1)


@pytest.fixture
def new_channel() -> Callable[[], str]:
    """Makes channel names that nobody else uses."""
    return lambda: f"Channel {os.getpid()} {next(_numbers)}"


@pytest.fixture
def channel(new_channel: Callable[[], str]) -> str:
    return new_channel()


@pytest.fixture(autouse=True)
def _names_in_docstrings(request: pytest.FixtureRequest, doctest_namespace: dict[str, Any]) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        doctest_namespace["pgpubsub"] = pgpubsub
        if any("dsn" in example.source for example in request.node.dtest.examples):
            doctest_namespace["dsn"] = dsn = request.getfixturevalue("dsn")
            with psycopg.connect(dsn) as connection:
                pgpubsub.streams.install(connection)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, rather than skip, what the server under test is too old for."""
    binaries = server_binaries() or find_binaries()
    command = [str(binaries / "postgres"), "--version"]  # postgres (PostgreSQL) 18.1
    version = int(subprocess.check_output(command, text=True).split()[2].split(".")[0])  # noqa: S603
    old = [item for item in items for mark in item.iter_markers("since_postgresql") if version < mark.args[0]]
    items[:] = [item for item in items if item not in old]
    if old:
        config.hook.pytest_deselected(items=old)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With PGPUBSUB_REQUIRE_ALL=1, what is skipped has failed."""
    report = yield
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped although PGPUBSUB_REQUIRE_ALL=1: {report.longrepr}"
    return report
