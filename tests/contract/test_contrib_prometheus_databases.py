"""What Prometheus is told of databases, with real servers and real faults."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

import pgpubsub
import pgpubsub.streams
from pgpubsub import Hub
from pgpubsub.contrib.prometheus import DatabaseCollector
from pgpubsub.doctor.lag import TURN
from pgpubsub.testing import Proxy, TemporaryServer
from tests.contract.conftest import database_in
from tests.contract.test_handler import eventually

Admin = psycopg.Connection[Any]


@pytest.fixture
def alone(dsn: str) -> Iterator[str]:
    """Where streams are installed in a database which has no others, of which there may be too many for one look."""
    with database_in("UTF8", dsn) as name:
        conninfo = make_conninfo(dsn, dbname=name)
        with psycopg.connect(conninfo) as admin:
            pgpubsub.streams.install(admin)
        yield conninfo


@pytest.fixture
def told(alone: str) -> Iterator[Callable[..., float | None]]:
    """A figure of the database, asked anew each time."""
    registry = CollectorRegistry()
    collector = DatabaseCollector({"app": alone}, registry=registry, keep=1e-9)
    yield lambda metric, **labels: registry.get_sample_value(f"pgpubsub_{metric}", {"database": "app", **labels})
    collector.close()


def test_how_far_groups_are_behind_is_told(
    told: Callable[..., float | None], alone: str, admin: Admin, channel: str
) -> None:
    with Hub(alone) as hub:
        stream = hub.stream(channel)
        stream.append_many(["1", "2", "bad", "4"])
        its = {"stream": channel, "group": "billing"}

        def handle(entry: Any) -> None:
            assert entry.payload != "bad"

        stream.process("billing", handle, follow=False, attempts=1)
        assert told("group_lag_entries", **its) == told("group_lag_seconds", **its) == 0
        assert told("group_dead_entries", **its) == 1
        assert told("group_members", **its) == 0
        ((now,),) = admin.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchall()
        assert abs((told("stream_last_append_timestamp_seconds", stream=channel) or 0) - now) < 60
        stream.append("5")
        with stream.consume("billing") as deliveries:
            in_hand = deliveries.get(timeout=20)
            assert told("group_lag_entries", **its) == told("group_members", **its) == 1
            assert 0 < (told("group_lag_seconds", **its) or 0) < 60
            in_hand.acknowledge()
        assert told("database_up") == 1
        assert (told("database_groups") or 0) >= 1
        assert (told("database_streams") or 0) >= 1
        assert (told("database_listening_sessions") or 0) >= 1
        assert told("database_in_recovery") == 0
        assert all(told("database_part_seen", part=part) == 1 for part in ("queue", "listeners", "streams", "groups"))


def test_one_look_tells_of_more_groups_than_are_asked_for_at_once(alone: str) -> None:
    groups = [f"group {number}" for number in range(TURN + 5)]
    with Hub(alone) as hub:
        stream = hub.stream("orders")
        stream.append("1")
        for group in groups:
            stream.process(group, lambda _: None, follow=False)
    registry = CollectorRegistry()
    collector = DatabaseCollector({"app": alone}, registry=registry, keep=60)
    families = {family.name: family for family in registry.collect()}
    collector.close()
    told = families["pgpubsub_group_lag_entries"].samples
    assert {sample.labels["group"] for sample in told} == set(groups)


def test_the_queue_is_told_while_it_fills(small_queue: TemporaryServer) -> None:
    dsn = small_queue.dsn()
    registry = CollectorRegistry()
    collector = DatabaseCollector({"app": dsn}, registry=registry, keep=1e-9)

    def told(metric: str) -> float:
        return registry.get_sample_value(f"pgpubsub_database_{metric}", {"database": "app"}) or 0.0

    with psycopg.connect(dsn) as stuck, psycopg.connect(dsn, autocommit=True) as sender:
        stuck.execute("LISTEN orders")
        stuck.commit()
        stuck.execute("BEGIN")
        assert told("notification_queue_ratio") == 0
        for number in range(30):
            sender.execute("SELECT pg_notify('orders', %s)", [f"{number} " + "x" * 7000])
        assert told("notification_queue_ratio") > 0.1
        assert registry.get_sample_value("pgpubsub_database_streams", {"database": "app"}) is None, "not installed"
        part = {"database": "app", "part": "streams"}
        assert registry.get_sample_value("pgpubsub_database_part_seen", part) is None
    collector.close()


def test_it_asks_once_for_scrapes_that_follow_each_other(installed: str) -> None:
    registry = CollectorRegistry()
    collector = DatabaseCollector({"app": installed}, registry=registry, keep=60)
    took = [registry.get_sample_value("pgpubsub_database_look_seconds", {"database": "app"}) for _ in range(3)]
    assert took[0] is not None
    assert took == [took[0]] * 3
    collector.close()


def test_a_server_that_does_not_answer_is_not_up_and_holds_up_nobody(
    installed: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    with Proxy(installed) as proxy:
        databases = {"app": proxy.dsn(), "away": "host=127.0.0.1 port=1"}
        collector = DatabaseCollector(databases, registry=registry, keep=1e-9, timeout=1.0)

        def up(database: str = "app") -> float | None:
            return registry.get_sample_value("pgpubsub_database_up", {"database": database})

        assert (up(), up("away")) == (1, 0)
        proxy.deafen()
        begun = monotonic()
        assert up() == 0
        assert monotonic() - begun < 10
        assert registry.get_sample_value("pgpubsub_database_streams", {"database": "app"}) is None
        proxy.hear()
        eventually(lambda: up() == 1, 20)
        collector.close()
    told = [record.__dict__ for record in caplog.records if record.name == "pgpubsub.prometheus"]
    assert {one["event_name"] for one in told} == {"database_unseen"}
    assert [one["database"] for one in told].count("away") == 1, "once"
    assert "it has not answered in time" in [one["detail"] for one in told if one["database"] == "app"]


def test_scrapes_of_a_server_that_does_not_answer_wait_at_once_and_not_one_after_the_other(installed: str) -> None:
    timeout = 2.0
    with Proxy(installed) as proxy, ThreadPoolExecutor(6) as scrapers:
        registry = CollectorRegistry()
        collector = DatabaseCollector({"app": proxy.dsn()}, registry=registry, keep=1e-9, timeout=timeout)

        def up(_: object = None) -> float | None:
            return registry.get_sample_value("pgpubsub_database_up", {"database": "app"})

        assert up() == 1
        proxy.deafen()
        begun = monotonic()
        assert list(scrapers.map(up, range(6))) == [0] * 6
        assert monotonic() - begun < 2 * timeout
        proxy.hear()
        eventually(lambda: up() == 1, 20)
        collector.close()


FORKS = """
import os, signal, socket, threading
from pgpubsub.contrib.prometheus import DatabaseCollector

def scrape():
    assert [one.value for one in next(iter(collector.collect())).samples] == [0]

with socket.create_server(("127.0.0.1", 0)) as mute:
    where = f"host=127.0.0.1 port={mute.getsockname()[1]} dbname=app"
    collector = DatabaseCollector({"app": where}, registry=None, timeout=1.0)
    scraping = threading.Thread(target=scrape)
    scraping.start()
    with mute.accept()[0]:  # it asks, and waits
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # it shall not hang
            scrape()
            os._exit(0)
        assert scraping.is_alive(), "it was forked too late to tell anything"
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        scraping.join()
    collector.close()
"""


def test_a_child_that_was_forked_during_a_scrape_can_scrape() -> None:
    """The thread that holds its parent's lock is not there to give it back."""
    told = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=50, check=False)
    assert told.returncode == 0, told.stderr


def test_what_a_role_may_not_see_is_missing_and_logged(
    installed: str, admin: Admin, caplog: pytest.LogCaptureFixture
) -> None:
    role = f"reader {os.getpid()}"
    admin.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(Identifier(role)))
    try:
        conninfo = make_conninfo(installed, user=role, password="secret")
        registry = CollectorRegistry()
        collector = DatabaseCollector({"app": conninfo}, registry=registry)
        seen = {
            part: registry.get_sample_value("pgpubsub_database_part_seen", {"database": "app", "part": part})
            for part in ("queue", "listeners", "streams", "groups")
        }
        assert seen == {"queue": 1, "listeners": 1, "streams": 0, "groups": 0}
        assert registry.get_sample_value("pgpubsub_database_groups", {"database": "app"}) is None
        collector.close()
        parts = [record.__dict__["part"] for record in caplog.records if record.name == "pgpubsub.prometheus"]
        assert sorted(parts) == ["groups", "streams"]
        assert "GRANT" in caplog.text
    finally:
        admin.execute(SQL("DROP ROLE {}").format(Identifier(role)))


def test_arguments_of_a_collector_are_checked() -> None:
    with pytest.raises(TypeError, match="by name"):
        DatabaseCollector("dbname=app", registry=None)  # type: ignore[arg-type]
    with pytest.raises(pgpubsub.ConninfoError):
        DatabaseCollector({"app": "nonsense=1"}, registry=None)
    with pytest.raises(ValueError, match="timeout"):
        DatabaseCollector({"app": ""}, registry=None, timeout=0)
