"""A program and a gateway to which everything happens that has a metric, and what the manual says of metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from prometheus_client import CollectorRegistry

from pgpubsub import Hub
from pgpubsub.contrib.prometheus import DatabaseCollector, HubMetrics
from tests.contract.test_handler import eventually

DOCS = Path(__file__).parents[2] / "docs"
MANUAL = (DOCS / "observability.md").read_text()


class Described(NamedTuple):
    """A metric."""

    type: str
    labels: frozenset[str]


def words(cell: str) -> list[str]:
    """What stands in a cell of a table as code."""
    return re.findall(r"`([^`]+)`", cell)


METRICS = {
    name: Described(kind, frozenset(words(labels)))
    for name, kind, labels in re.findall(r"^\| `(pgpubsub_\w+)` \| (\w+) \|([^|]*)\|", MANUAL, re.M)
}
"""By their names."""


def metric_of(name: str) -> str | None:
    """The metric that a series belongs to."""
    if name in METRICS:
        return name
    family = re.sub(r"_(bucket|sum|count)$", "", name)
    return family if METRICS.get(family, Described("", frozenset())).type == "histogram" else None


@contextmanager
def program(dsn: str) -> Iterator[CollectorRegistry]:
    """One that exposes metrics of a database with streams, after something of each kind has happened."""
    registry = CollectorRegistry()
    metrics = HubMetrics(registry, streams=["observed"])
    database = DatabaseCollector({"app": dsn}, registry=registry, keep=1e-9)
    with (
        closing(database),
        psycopg.connect(dsn, autocommit=True) as admin,
        Hub(dsn, observe=metrics.observer("app")) as hub,
        hub.subscribe("observed") as events,
    ):
        metrics.watch("app", hub)
        hub.notify("observed", "text")
        events.get(timeout=20)
        _consume(hub, admin, registry)
        yield registry


def _consume(hub: Hub, admin: psycopg.Connection[Any], registry: CollectorRegistry) -> None:
    stream = hub.stream("observed")
    stream.append_many(["1", "2", "bad"])

    def handle(entry: Any) -> None:
        assert entry.payload != "bad"

    stream.process("billing", handle, follow=False, attempts=1)
    stream.append("4")
    with stream.consume("billing") as deliveries:
        in_hand = deliveries.get(timeout=20)
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^pgpubsub (handle|read) '"
        )
        its = {"hub": "app", "stream": "observed", "group": "billing"}
        eventually(lambda: registry.get_sample_value("pgpubsub_group_leases_lost_total", its) == 1)
        del in_hand
