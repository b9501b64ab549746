"""What Prometheus is told of hubs, with real servers and real faults."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

import pgpubsub
from pgpubsub import GapReason, Hub, LeaseLost, SubscriberTooSlow
from pgpubsub.contrib.prometheus import HubMetrics
from pgpubsub.contrib.prometheus.sharing import SEVERAL, exposition
from tests.contract.faces import AnyHub, listening_pid
from tests.contract.groups import consume, process
from tests.contract.streams import open_stream
from tests.contract.test_handler import eventually
from tests.contract.test_hub_life import Switch, cut_off, nobody, switch, terminate_all  # noqa: F401  # fixtures
from tests.contract.test_pubsub import terminate

Admin = psycopg.Connection[Any]
NewHub = Callable[..., AnyHub]


class Scraped:
    """A registry, read as Prometheus reads it."""

    def __init__(self, **options: Any) -> None:
        self.registry = CollectorRegistry()
        self.metrics = HubMetrics(self.registry, **options)

    def hub(self, new_hub: NewHub, *args: Any, name: str = "app", **options: Any) -> AnyHub:
        hub = new_hub(*args, observe=self.metrics.observer(name), **options)
        self.metrics.watch(name, hub)
        return hub

    def __call__(self, metric: str, hub: str = "app", **labels: str) -> float | None:
        return self.registry.get_sample_value(f"pgpubsub_{metric}", {"hub": hub, **labels})


@pytest.fixture
def scraped() -> Scraped:
    return Scraped()


# -- hubs


def test_counters_of_a_hub_are_those_of_its_stats(new_hub: NewHub, scraped: Scraped, channel: str) -> None:
    with scraped.hub(new_hub) as hub, hub.subscribe(channel) as events, hub.subscribe(channel):
        for number in range(3):
            hub.notify(channel, str(number))
            events.get(timeout=10)
        eventually(lambda: scraped("hub_buffered_events") == 3)
        assert scraped("hub_live") == scraped("hub_can_send") == 1
        assert scraped("hub_subscriptions") == 2
        assert scraped("hub_fullest_buffer_events") == scraped("hub_buffered_bytes") == 3
        assert scraped("hub_notifications_sent_total") == scraped("hub_notifications_delivered_total") == 3
        assert scraped("hub_notifications_received_total") == hub.stats().received
        assert scraped("hub_send_seconds_count", outcome="sent") == 3
        assert 0 < (scraped("hub_send_seconds_sum", outcome="sent") or 0) < 10
        assert scraped("hub_send_seconds_count", outcome="failed") == 0
        assert 0 < (scraped("hub_heartbeat_seconds") or 0) < 5
        assert scraped("hub_heartbeats_total") == scraped("hub_until_live_seconds_count") == 1
        assert scraped("hub_reconnects_total") == scraped("hub_gaps_total", reason="connection_lost") == 0


def test_a_lost_connection_is_counted_with_its_gap(
    new_hub: NewHub, scraped: Scraped, admin: Admin, channel: str
) -> None:
    with scraped.hub(new_hub) as hub, hub.subscribe(channel) as events:
        terminate(admin, listening_pid(admin))
        gap = events.get(timeout=20)
        assert isinstance(gap, pgpubsub.Gap)
        assert scraped("hub_gaps_total", reason=str(gap.reason)) == 1
        assert scraped("hub_gaps_delivered_total") == 1
        assert scraped("hub_connections_lost_total", link="listening") == 1
        assert scraped("hub_connections_lost_total", link="sending") == 0
        assert scraped("hub_reconnects_total") == 1
        assert scraped("hub_until_live_seconds_count") == 2


@pytest.mark.parametrize("hub_kind", ["Hub"])
def test_a_hub_without_a_server_is_not_live_and_what_it_sends_fails(
    new_hub: NewHub,
    scraped: Scraped,
    switch: Switch,  # noqa: F811
    admin: Admin,
    channel: str,
) -> None:
    with scraped.hub(new_hub, switch, send_timeout=0.2) as hub:
        cut_off(hub, admin, switch)
        with pytest.raises(pgpubsub.SendTimeout):
            hub.notify(channel, "never")
        assert scraped("hub_live") == scraped("hub_can_send") == 0
        assert scraped("hub_send_seconds_count", outcome="failed") == 1
        eventually(lambda: all(scraped("hub_connect_failures_total", link=link) for link in ("listening", "sending")))
        switch.on = True
        eventually(lambda: scraped("hub_live") == scraped("hub_can_send") == 1)


def test_what_slow_subscribers_lose_is_counted(
    new_hub: NewHub, scraped: Scraped, admin: Admin, new_channel: Callable[[], str]
) -> None:
    clears, closes = new_channel(), new_channel()
    with (
        scraped.hub(new_hub) as hub,
        hub.subscribe(clears, capacity=2) as events,
        hub.subscribe(closes, capacity=2, overflow="close") as closed,
    ):
        for name in (clears, closes):
            with admin.transaction():
                for number in range(10):
                    pgpubsub.notify(admin, name, str(number))
        with pytest.raises(SubscriberTooSlow):
            list(closed)
        eventually(lambda: scraped("hub_subscriptions_cut_off_total") == 1)
        eventually(lambda: (scraped("hub_notifications_dropped_total") or 0) > 7)
        gap = events.get(timeout=10)
        assert isinstance(gap, pgpubsub.Gap)
        assert gap.reason is GapReason.OVERFLOW
        assert scraped("hub_gaps_delivered_total") == 1


def test_groups_are_counted_by_name_and_streams_where_they_are_named(
    installed: str, new_hub: NewHub, new_channel: Callable[[], str]
) -> None:
    named, unnamed = new_channel(), new_channel()
    scraped = Scraped(streams=[named])
    with scraped.hub(new_hub) as hub:
        for name, label in ((named, named), (unnamed, "")):
            stream = open_stream(hub, name)
            stream.append("1")
            stream.append_many(["2", "bad", "4"])

            def handle(entry: Any) -> None:
                assert entry.payload != "bad"

            process(stream, "billing", handle, follow=False, attempts=2, backoff=0)
            its = {"stream": label, "group": "billing"}
            assert scraped("hub_append_seconds_count", stream=label, outcome="appended") == 2
            assert scraped("group_entries_handled_total", **its) == 3
            assert scraped("group_entries_failed_total", **its) == 2
            assert scraped("group_handling_seconds_count", outcome="handled", **its) == 3
            assert scraped("group_handling_seconds_count", outcome="failed", **its) == 2
        assert scraped("hub_entries_appended_total") == 8


def test_batches_count_their_entries(installed: str, new_hub: NewHub, scraped: Scraped, channel: str) -> None:
    with scraped.hub(new_hub) as hub:
        stream = open_stream(hub, channel)
        stream.append_many(list("12345"))
        sizes: list[int] = []
        process(stream, "billing", lambda batch: sizes.append(len(batch)), batch=5, follow=False)
        its = {"stream": "", "group": "billing"}
        assert scraped("group_entries_handled_total", **its) == sum(sizes) == 5
        assert scraped("group_handling_seconds_count", outcome="handled", **its) == len(sizes)


def test_a_lost_lease_is_counted(installed: str, new_hub: NewHub, scraped: Scraped, admin: Admin, channel: str) -> None:
    with scraped.hub(new_hub) as hub:
        stream = open_stream(hub, channel)
        stream.append("1")
        with consume(stream, "billing") as deliveries:
            in_hand = deliveries.get(timeout=20)
            terminate_all(admin)
            eventually(lambda: scraped("group_leases_lost_total", stream="", group="billing") == 1)
            with pytest.raises(LeaseLost):
                in_hand.acknowledge()


# -- life, and names


def test_a_hub_that_is_not_used_or_closed_is_neither_live_nor_not(
    new_hub: NewHub, scraped: Scraped, channel: str
) -> None:
    hub = scraped.hub(new_hub)
    assert scraped("hub_live") is None
    assert scraped("hub_notifications_sent_total") == 0
    with hub:
        hub.notify(channel, "1")
        assert scraped("hub_live") == 1
    assert scraped("hub_live") is scraped("hub_subscriptions") is None
    assert scraped("hub_notifications_sent_total") == 1
    with scraped.hub(new_hub) as another:
        another.notify(channel, "2")
        assert scraped("hub_live") == 1
        assert scraped("hub_notifications_sent_total") == 2, "it goes on where the one before has left it"


def test_the_next_hub_of_a_name_goes_on_with_what_nobody_has_read_of_those_before(
    new_hub: NewHub, scraped: Scraped, channel: str
) -> None:
    kept = []  # a hub that nobody has any more takes with it what nobody has read
    for _ in range(3):
        with scraped.hub(new_hub) as hub:
            kept.append(hub)
            hub.notify_many([(channel, str(number)) for number in range(100)])
    assert scraped("hub_notifications_sent_total") == 300
    assert scraped("hub_notifications_sent_total") == 300, "nor is any counted twice"
    assert scraped("hub_send_seconds_count", outcome="sent") == 3


def test_hubs_are_told_apart_by_their_names(dsn: str, scraped: Scraped) -> None:
    with scraped.hub(Hub, dsn) as hub, scraped.hub(Hub, dsn, name="other") as other:
        other.notify("somewhere", "text")
        assert scraped("hub_notifications_sent_total", "other") == 1
        assert scraped("hub_notifications_sent_total", "app") == 0
        scraped.metrics.watch("app", hub)  # again
        with pytest.raises(ValueError, match="another hub is watched as 'app'"):
            scraped.metrics.watch("app", other)


def test_one_registry_has_room_for_one(scraped: Scraped) -> None:
    with pytest.raises(ValueError, match="Duplicated"):
        HubMetrics(scraped.registry)
    with pytest.raises(TypeError, match="streams are names"):
        HubMetrics(None, streams="orders")


def test_a_hub_that_nobody_has_any_more_is_let_go(dsn: str, scraped: Scraped) -> None:
    with scraped.hub(Hub, dsn) as hub:
        assert scraped("hub_live") == 1
    del hub
    eventually(lambda: scraped("hub_live") is None)


# -- several processes

WORKER = """
import sys
import pgpubsub
from pgpubsub.contrib.prometheus import HubMetrics

metrics = HubMetrics(None)
with pgpubsub.Hub(sys.argv[1], observe=metrics.observer("app")) as hub:
    metrics.watch("app", hub)
    with hub.subscribe("several"):
        for number in range(5):
            hub.notify("elsewhere", "text")
        print("done", flush=True)
        sys.stdin.read()
"""


class Workers:
    """Processes that share their metrics."""

    def __init__(self, dsn: str, directory: Path) -> None:
        self._dsn = dsn
        self._environment = {**os.environ, SEVERAL: str(directory)}
        self.processes: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, self._dsn]
        worker = subprocess.Popen(
            command, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.processes.append(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "done\n"
        return worker

    def end(self) -> None:
        for one in self.processes:
            one.kill()
            one.communicate()


@pytest.fixture
def workers(dsn: str, tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(dsn, tmp_path)
    yield workers
    workers.end()


def test_processes_that_share_are_added_up_and_forgotten_when_they_are_killed(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SEVERAL, str(tmp_path))

    def scraped(metric: str, **labels: str) -> float | None:
        for family in text_string_to_metric_families(exposition().decode()):
            for sample in family.samples:
                if (sample.name, sample.labels) == (f"pgpubsub_hub_{metric}", {"hub": "app", **labels}):
                    return sample.value
        return None

    one, _ = workers.start(), workers.start()
    eventually(lambda: scraped("notifications_sent_total") == 10, 20)
    assert scraped("subscriptions") == 2
    assert scraped("live") == 1
    assert scraped("send_seconds_count", outcome="sent") == 10
    one.kill()
    one.wait()
    assert scraped("subscriptions") == 1
    assert scraped("notifications_sent_total") == 10, "what it had counted stays"
