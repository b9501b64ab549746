"""What the gateway counts, and how Prometheus gets it.

Hot paths add to plain numbers; these go into Prometheus's now and then. With several workers, of which a scrape reaches
one, those are shared files (`PROMETHEUS_MULTIPROC_DIR`).
"""

from __future__ import annotations

import os
from collections import Counter as Tally
from collections.abc import Sized
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from pgpubsub.aio import AsyncHub

__all__ = ["CONTENT_TYPE", "Counts", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST

SEVERAL = "PROMETHEUS_MULTIPROC_DIR"


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
    def hub(self) -> AsyncHub: ...
    @property
    def counts(self) -> Counts: ...
    @property
    def outlets(self) -> Sized: ...


class Metrics:
    """One process's."""

    def __init__(self, gateway: Counted) -> None:
        self._gateway = gateway
        self._registry = CollectorRegistry()
        self._told = dict.fromkeys(COUNTERS, 0)
        self._told_refused: Tally[int] = Tally()
        self._told_reconnects = 0
        self._counters = {
            name: Counter(metric, words, registry=self._registry) for name, (metric, words) in COUNTERS.items()
        }
        self._refused = Counter(
            "pgpubsub_gateway_requests_refused", "Requests that were refused.", ["status"], registry=self._registry
        )
        self._present = self._gauge("pgpubsub_gateway_clients_present", "Clients that are there.", "livesum")
        self._live = self._gauge("pgpubsub_hub_live", "Whether notifications arrive: 1 or 0.", "livemin")
        self._heartbeat = self._gauge("pgpubsub_hub_heartbeat_seconds", "How long the last heartbeat took.", "livemax")
        self._reconnects = Counter(
            "pgpubsub_hub_reconnects", "Connections that replaced a lost one.", registry=self._registry
        )

    def update(self) -> None:
        """Have Prometheus's numbers be what is counted."""
        counts, hub = self._gateway.counts, self._gateway.hub
        for name, counter in self._counters.items():
            now = getattr(counts, name)
            counter.inc(now - self._told[name])
            self._told[name] = now
        for status, count in counts.refused.items():
            self._refused.labels(str(status)).inc(count - self._told_refused[status])
            self._told_refused[status] = count
        stats = hub.stats()
        self._reconnects.inc(stats.reconnects - self._told_reconnects)
        self._told_reconnects = stats.reconnects
        self._present.set(len(self._gateway.outlets))
        self._live.set(hub.state.live)
        if stats.heartbeat_seconds is not None:
            self._heartbeat.set(stats.heartbeat_seconds)

    def exposition(self) -> bytes:
        """In Prometheus's text format, of all workers."""
        self.update()
        registry = self._registry
        if SEVERAL in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def _gauge(self, name: str, words: str, mode: str) -> Gauge:
        return Gauge(name, words, registry=self._registry, multiprocess_mode=mode)  # type: ignore[arg-type]
