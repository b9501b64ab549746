"""What a database tells of the notification queue, who listens, streams and how far groups are behind, as metrics.

It is asked when it is scraped, over a connection of its own, with the questions of `pgpubsub top`: each reads a bounded
part of each table and is ended by the server after half a second. So a group's lag is counted up to 10,000 entries, 50
streams are told of, and of more than 200 groups some figures are a few scrapes old. One process in a deployment is
enough, since all would tell the same.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from threading import Event, Lock
from time import monotonic

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from pgpubsub.background import BackgroundCall
from pgpubsub.contrib.of_process import OfProcess
from pgpubsub.core.entries import check_schema
from pgpubsub.core.timeouts import check_seconds
from pgpubsub.doctor.lag import Group
from pgpubsub.doctor.sampling import Listeners, Missing, Queue, Sample, Sampler, Streams, Unseen
from pgpubsub.drivers.psycopg3 import parse_conninfo, psycopg
from pgpubsub.errors import PubSubError
from pgpubsub.logs import EventLog

__all__ = ["DatabaseCollector"]

logger = EventLog("prometheus")

TURNS = 10
"""How often 20 groups are looked at for a scrape."""

DATABASE = ["database"]
STREAM = ["database", "stream"]
GROUP = ["database", "stream", "group"]

FAMILIES = {
    "pgpubsub_database_up": ("Whether the database answered: 1 or 0.", DATABASE),
    "pgpubsub_database_part_seen": ("Whether this part could be looked at: 1 or 0.", ["database", "part"]),
    "pgpubsub_database_look_seconds": ("How long it took to ask.", DATABASE),
    "pgpubsub_database_in_recovery": ("Whether the server is a standby: 1 or 0.", DATABASE),
    "pgpubsub_database_notification_queue_ratio": ("How full the notification queue is, from 0 to 1.", DATABASE),
    "pgpubsub_database_notify_waiting_sessions": ("Sessions that wait for the lock of NOTIFY.", DATABASE),
    "pgpubsub_database_listening_sessions": ("Sessions that listen.", DATABASE),
    "pgpubsub_database_stuck_listening_sessions": ("Of these, those that take nothing; up to 100.", DATABASE),
    "pgpubsub_database_hidden_sessions": ("Sessions of which cannot be told whether they listen.", DATABASE),
    "pgpubsub_database_streams": ("Streams.", DATABASE),
    "pgpubsub_database_groups": ("Groups.", DATABASE),
    "pgpubsub_stream_last_append_timestamp_seconds": ("When the newest entry was appended.", STREAM),
    "pgpubsub_group_lag_entries": ("Entries that are not settled, up to 10,000.", GROUP),
    "pgpubsub_group_lag_seconds": ("Age of the oldest of them; 0 if there is none.", GROUP),
    "pgpubsub_group_members": ("Consumers that take part.", GROUP),
    "pgpubsub_group_held_up_entries": ("Entries that failed and wait to be handed out again.", GROUP),
    "pgpubsub_group_dead_entries": ("Entries that were set aside.", GROUP),
}
"""What they mean, and their labels."""


class DatabaseCollector:
    """See the module. One for each registry.

    Args:
        databases: connection strings by the value of the label `database`.
        registry: of `prometheus_client`, the one that they are exposed from. None: none yet; it is a collector.
        schema: where streams are installed.
        timeout: seconds that all may take together. What has not answered by then is not up.
        keep: seconds for which an answer is good for other scrapes.

    Raises:
        ValueError: an argument is not possible, or the registry has these metrics already.
        ConninfoError: a connection string is malformed.

    The role needs `pg_monitor` to be shown what others' sessions do, and SELECT on the tables of streams.

    >>> collector = DatabaseCollector({"app": dsn}, registry=None)
    >>> samples = {sample.name: sample.value for family in collector.collect() for sample in family.samples}
    >>> samples["pgpubsub_database_up"]
    1.0
    >>> collector.close()
    """

    def __init__(
        self,
        databases: Mapping[str, str],
        registry: CollectorRegistry | None = REGISTRY,
        *,
        schema: str = "pgpubsub",
        timeout: float = 5.0,
        keep: float = 10.0,
    ) -> None:
        if not hasattr(databases, "items"):
            raise TypeError("databases are connection strings by name, such as {'app': 'dbname=app'}")
        check_schema(schema)
        check_seconds("timeout", timeout)
        check_seconds("keep", keep)
        for conninfo in databases.values():
            parse_conninfo(conninfo, {})
        self._timeout = timeout
        self._views = OfProcess(lambda: (Lock(), [_View(name, one, schema, keep) for name, one in databases.items()]))
        if registry is not None:
            registry.register(self)

    def describe(self) -> list[Metric]:
        """For the registry."""
        return list(_families().values())

    def collect(self) -> Iterator[Metric]:
        """For the registry. It asks, and waits for the answers."""
        families = _families()
        deadline = monotonic() + self._timeout  # first: another scrape may be waiting
        lock, views = self._views.get()
        with lock:
            for view in views:
                view.begin()
            for view in views:
                view.tell(families, deadline)
        yield from families.values()

    def close(self) -> None:
        """End its connections. The next scrape makes others."""
        if (made := self._views.take()) is not None:
            for view in made[1]:
                view.close()


def _families() -> dict[str, GaugeMetricFamily]:
    return {name: GaugeMetricFamily(name, words, labels=labels) for name, (words, labels) in FAMILIES.items()}


class _View:
    """One database, and what it told last."""

    def __init__(self, name: str, conninfo: str, schema: str, keep: float) -> None:
        own = f"pgpubsub metrics {os.getpid()}@{socket.gethostname()}".encode()[:63].decode(errors="ignore")
        self._sampler = Sampler(conninfo, schema, own, turns=TURNS)
        self._name = name
        self._keep = keep
        self._call: BackgroundCall[tuple[Sample, float]] | None = None
        self._answered = Event()
        self._told: tuple[Sample, float] | None = None
        self._why: dict[str, str] = {}

    def begin(self) -> None:
        """Ask, unless what was told last is new, or it is being asked."""
        if self._call is not None and self._call.done:
            self._conclude()
        if self._call is None and (self._told is None or monotonic() > self._told[0].time + self._keep):
            self._answered.clear()
            self._call = BackgroundCall(self._ask, self._answered.set)
            self._call.start()

    def tell(self, families: dict[str, GaugeMetricFamily], deadline: float) -> None:
        """Add what it told, or by then has told."""
        if self._call is not None:
            if self._answered.wait(max(0.0, deadline - monotonic())):
                self._conclude()
            else:
                self._told = None
                self._note("answer", "it has not answered in time")
                self._sampler.break_off()
        families["pgpubsub_database_up"].add_metric([self._name], float(self._told is not None))
        if self._told is not None:
            _Told(families, self._name).add(*self._told)

    def close(self) -> None:
        self._sampler.break_off()
        self._sampler.close()

    def _ask(self) -> tuple[Sample, float]:
        began = monotonic()
        sample = self._sampler.sample()
        return sample, monotonic() - began

    def _conclude(self) -> None:
        assert self._call is not None
        call, self._call = self._call, None
        try:
            self._told = sample, _ = call.result()
        except (PubSubError, psycopg.Error) as error:
            self._told = None
            self._note("answer", str(error))
        else:
            self._note("answer", "")
            for part in ("queue", "listeners", "streams", "groups"):
                found = getattr(sample, part)
                self._note(part, found.why if isinstance(found, Unseen) and not isinstance(found, Missing) else "")

    def _note(self, part: str, why: str) -> None:
        """Log why there is none, unless that was the last thing that was logged of it."""
        if why and self._why.get(part) != why:
            logger.warning(
                "database_unseen",
                "database %(database)r, %(part)s: %(detail)s",
                database=self._name,
                part=part,
                detail=why,
            )
        self._why[part] = why


class _Told:
    """A sample as metrics."""

    def __init__(self, families: dict[str, GaugeMetricFamily], database: str) -> None:
        self._families = families
        self._database = database

    def add(self, sample: Sample, seconds: float) -> None:
        """All of it."""
        self._set("pgpubsub_database_look_seconds", seconds)
        self._set("pgpubsub_database_in_recovery", sample.server.in_recovery)
        for part in ("queue", "listeners", "streams", "groups"):
            found = getattr(sample, part)
            if not isinstance(found, Missing):
                self._set("pgpubsub_database_part_seen", not isinstance(found, Unseen), part)
        if isinstance(sample.queue, Queue):
            self._set("pgpubsub_database_notification_queue_ratio", sample.queue.usage)
            self._set("pgpubsub_database_notify_waiting_sessions", sample.queue.waiting)
        if isinstance(sample.listeners, Listeners):
            stuck = sum(one.troublesome for one in sample.listeners.sessions)
            self._set("pgpubsub_database_listening_sessions", sample.listeners.total)
            self._set("pgpubsub_database_stuck_listening_sessions", stuck)
            self._set("pgpubsub_database_hidden_sessions", sample.listeners.hidden)
        if isinstance(sample.streams, Streams):
            self._set("pgpubsub_database_streams", sample.streams.total)
            for stream in sample.streams.streams:
                if stream.age is not None:
                    at = sample.at.timestamp() - stream.age
                    self._set("pgpubsub_stream_last_append_timestamp_seconds", at, stream.name)
        if not isinstance(sample.groups, Unseen):
            self._set("pgpubsub_database_groups", sample.groups.total)
            for group in sample.groups.groups:
                self._add_group(group)

    def _add_group(self, group: Group) -> None:
        labels = group.stream, group.name
        self._set("pgpubsub_group_lag_entries", group.lag, *labels)
        if group.oldest is not None or not group.lag:
            self._set("pgpubsub_group_lag_seconds", group.oldest or 0, *labels)
        self._set("pgpubsub_group_members", group.members, *labels)
        self._set("pgpubsub_group_held_up_entries", group.held_up, *labels)
        self._set("pgpubsub_group_dead_entries", group.dead, *labels)

    def _set(self, name: str, value: float, *labels: str) -> None:
        self._families[name].add_metric([self._database, *labels], float(value))
