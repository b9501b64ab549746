"""The metrics of hubs and of their groups: names, words, labels.

With several processes, of which a scrape reaches one, Prometheus's client keeps them in shared files
(`PROMETHEUS_MULTIPROC_DIR`), in which gauges need a rule for how those of several processes become one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["COUNTED", "Families"]

CALLS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds: a hub's `send_timeout` is 30 unless it is set."""

HANDLING = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)

OUTAGES = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)

COUNTED = {
    "received": ("pgpubsub_hub_notifications_received", "Notifications that came from the server."),
    "delivered": ("pgpubsub_hub_notifications_delivered", "Notifications that subscriptions have taken."),
    "dropped": ("pgpubsub_hub_notifications_dropped", "Notifications that did not fit into a subscription's buffer."),
    "gaps": ("pgpubsub_hub_gaps_delivered", "Gaps that subscriptions have taken, of whatever reason."),
    "sent": ("pgpubsub_hub_notifications_sent", "Notifications that were sent and acknowledged."),
    "appended": ("pgpubsub_hub_entries_appended", "Entries that were appended to streams and acknowledged."),
    "reconnects": ("pgpubsub_hub_reconnects", "Connections that replaced a lost one."),
}
"""Counters, by what they are called in `HubStats`."""


class Families:
    """All of them, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.counted = {field: self._counter(name, words) for field, (name, words) in COUNTED.items()}
        self._make_those_of_now()
        self._make_those_of_hubs()
        self._make_those_of_groups()

    def _make_those_of_now(self) -> None:
        self.live = self._gauge("live", "Whether notifications arrive: 1 or 0.", "livemin")
        self.can_send = self._gauge("can_send", "Whether something can be sent: 1 or 0.", "livemin")
        self.heartbeat = self._gauge(
            "heartbeat_seconds", "How long the last heartbeat took, there and back.", "livemax"
        )
        self.subscriptions = self._gauge("subscriptions", "Open subscriptions.", "livesum")
        self.buffered = self._gauge("buffered_events", "Events in their buffers.", "livesum")
        self.buffered_bytes = self._gauge("buffered_bytes", "Bytes of payload in their buffers.", "livesum")
        self.fullest = self._gauge("fullest_buffer_events", "Events in the buffer that has most.", "livemax")
        connected, buffers = (self.live, self.can_send, self.heartbeat), (self.buffered, self.buffered_bytes)
        self.present = (*connected, self.subscriptions, *buffers, self.fullest)

    def _make_those_of_hubs(self) -> None:
        counter, histogram = self._counter, self._histogram
        self.heartbeats = counter("pgpubsub_hub_heartbeats", "Heartbeats that came back.")
        self.gaps = counter("pgpubsub_hub_gaps", "Times that subscribers or readers were told of a gap.", "reason")
        self.lost = counter("pgpubsub_hub_connections_lost", "Connections that were lost.", "link")
        self.failures = counter("pgpubsub_hub_connect_failures", "Attempts to connect that failed.", "link")
        self.cut_off = counter("pgpubsub_hub_subscriptions_cut_off", "Subscriptions that were ended as too slow.")
        self.until_live = histogram(
            "pgpubsub_hub_until_live_seconds",
            "From the loss of a connection, or the start, until notifications arrived.",
            OUTAGES,
        )
        self.send = histogram("pgpubsub_hub_send_seconds", "How long calls of notify took.", CALLS, "outcome")
        self.append = histogram(
            "pgpubsub_hub_append_seconds", "How long calls of append took.", CALLS, "stream", "outcome"
        )

    def _make_those_of_groups(self) -> None:
        counter, labels = self._counter, ("stream", "group")
        self.handled = counter("pgpubsub_group_entries_handled", "Entries that were acknowledged.", *labels)
        self.failed = counter("pgpubsub_group_entries_failed", "Entries whose handling failed.", *labels)
        self.leases_lost = counter(
            "pgpubsub_group_leases_lost", "Times that consumers lost what they had in hand.", *labels
        )
        self.handling = self._histogram(
            "pgpubsub_group_handling_seconds",
            "How long entries, or batches of them, were in hand.",
            HANDLING,
            *labels,
            "outcome",
        )

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(name, words, ["hub", *labels], registry=self._registry)

    def _histogram(self, name: str, words: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, words, ["hub", *labels], buckets=buckets, registry=self._registry)

    def _gauge(self, name: str, words: str, mode: Literal["livemin", "livemax", "livesum"]) -> Gauge:
        return Gauge(f"pgpubsub_hub_{name}", words, ["hub"], registry=self._registry, multiprocess_mode=mode)
