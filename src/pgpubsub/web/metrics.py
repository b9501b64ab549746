"""What the gateway counts, and how Prometheus gets it.

Hot paths add to plain numbers; these go into Prometheus's now and then. With several workers, of which a scrape reaches
one, those are shared files (`PROMETHEUS_MULTIPROC_DIR`). What is told of the hub, and of the database if that is asked
for, is as in any other program: `pgpubsub.contrib.prometheus`.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter as Tally
from collections.abc import Sized
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from pgpubsub.contrib.prometheus import DatabaseCollector, HubMetrics
from pgpubsub.contrib.prometheus.sharing import SEVERAL, exposition

__all__ = ["CONTENT_TYPE", "NAME", "Counts", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST

NAME = "gateway"
"""Of its hub and its database, as labels."""


@dataclass(slots=True)
class Counts:
    """Plain numbers, since some are counted a hundred thousand times a second."""

    clients: int = 0
    received: int = 0
    delivered: int = 0
    bytes: int = 0
    skipped: int = 0
    cut_off: int = 0
    to_channels: int = 0
    to_streams: int = 0
    refused: Tally[int] = field(default_factory=Tally)
    """By HTTP status."""


COUNTERS = {
    "clients": ("pgpubsub_gateway_clients", "Clients that have come to stay."),
    "received": ("pgpubsub_gateway_events_received", "Events of channels and streams that came from the database."),
    "delivered": ("pgpubsub_gateway_events_delivered", "Events that clients have got."),
    "bytes": ("pgpubsub_gateway_bytes_sent", "Bytes of events and comments that were sent to clients."),
    "skipped": ("pgpubsub_gateway_events_skipped", "Events that clients were too slow for, and were told of in gaps."),
    "cut_off": ("pgpubsub_gateway_clients_cut_off", "Clients that took nothing, or too little, for too long."),
    "to_channels": ("pgpubsub_gateway_messages_notified", "Messages of clients, sent on channels."),
    "to_streams": ("pgpubsub_gateway_messages_appended", "Messages of clients, appended to streams."),
}


class Counted(Protocol):
    """What is measured."""

    @property
    def counts(self) -> Counts: ...
    @property
    def outlets(self) -> Sized: ...


class Metrics:
    """One process's.

    Args:
        gateway: whose.
        hubs: with its hub.
        database: where the database is to be asked, too.
    """

    def __init__(self, gateway: Counted, hubs: HubMetrics, database: DatabaseCollector | None = None) -> None:
        self._gateway = gateway
        self._hubs = hubs
        self._database = database
        self._registry = CollectorRegistry()
        self._registry.register(hubs)
        self._told = dict.fromkeys(COUNTERS, 0)
        self._told_refused: Tally[int] = Tally()
        self._counters = {
            name: Counter(metric, words, registry=self._registry) for name, (metric, words) in COUNTERS.items()
        }
        self._refused = Counter(
            "pgpubsub_gateway_requests_refused", "Requests that were refused.", ["status"], registry=self._registry
        )
        self._present = Gauge(
            "pgpubsub_gateway_clients_present",
            "Clients that are there.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )

    def update(self) -> None:
        """Have Prometheus's numbers be what is counted."""
        counts = self._gateway.counts
        for name, counter in self._counters.items():
            now = getattr(counts, name)
            counter.inc(now - self._told[name])
            self._told[name] = now
        for status, count in counts.refused.items():
            self._refused.labels(str(status)).inc(count - self._told_refused[status])
            self._told_refused[status] = count
        self._present.set(len(self._gateway.outlets))
        self._hubs.update()

    async def exposition(self) -> bytes:
        """In Prometheus's text format, of all workers."""
        self.update()
        several = SEVERAL in os.environ
        text = await asyncio.to_thread(exposition) if several else generate_latest(self._registry)
        if self._database is not None:
            asked = CollectorRegistry()
            asked.register(self._database)
            text += await asyncio.to_thread(generate_latest, asked)
        return text

    def close(self) -> None:
        """Ask the database no more."""
        if self._database is not None:
            self._database.close()
