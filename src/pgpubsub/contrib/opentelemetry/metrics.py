"""The instruments: those of the conventions for messaging, and what hubs count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
from opentelemetry.util.types import AttributeValue

from pgpubsub.aio import AsyncHub
from pgpubsub.status import HubStats, HubStatus
from pgpubsub.threads.hub import Hub

__all__ = ["Attributes", "Instruments"]

Attributes = Mapping[str, AttributeValue]

SECONDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
"""The buckets that the conventions recommend."""

RECEIVED = {"messaging.operation.name": "receive", "messaging.operation.type": "receive"}

COUNTED: Mapping[str, tuple[str, str, Callable[[HubStats], int]]] = {
    "pgpubsub.notifications.received": ("{message}", "Notifications that came.", lambda stats: stats.received),
    "pgpubsub.notifications.dropped": ("{message}", "What did not fit into a buffer.", lambda stats: stats.dropped),
    "pgpubsub.gaps": ("{gap}", "Gaps that were taken.", lambda stats: stats.gaps),
    "pgpubsub.reconnections": ("{connection}", "Listening connections replaced.", lambda stats: stats.reconnects),
}
"""Sums, by name: the unit, what they are, and what they are in a hub's figures."""

MEASURED: Mapping[str, tuple[str, str, Callable[[HubStats], float | None]]] = {
    "pgpubsub.subscriptions": ("{subscription}", "Open subscriptions.", lambda stats: len(stats.subscriptions)),
    "pgpubsub.buffer.messages": (
        "{message}",
        "What waits in buffers.",
        lambda stats: sum([one.depth for one in stats.subscriptions]),
    ),
    "pgpubsub.buffer.size": (
        "By",
        "Payloads that wait in buffers.",
        lambda stats: sum([one.bytes for one in stats.subscriptions]),
    ),
    "pgpubsub.heartbeat.duration": ("s", "What the last heartbeat took.", lambda stats: stats.heartbeat_seconds),
}
"""Gauges, by name."""


class _Global:
    """Stands for OpenTelemetry's global provider."""


_GLOBAL = _Global()

_watched: WeakKeyDictionary[object, WeakKeyDictionary[AsyncHub | Hub, Attributes]] = WeakKeyDictionary()
"""The hubs that each provider's metrics tell of. Of instruments that are made twice the first alone is asked."""


class Instruments:
    """See the module.

    Args:
        provider: of meters; None for the global one.
        meter: from there.
        everywhere: attributes of all that is measured.
    """

    def __init__(self, provider: MeterProvider | None, meter: Meter, everywhere: Attributes) -> None:
        self._everywhere = everywhere
        self._hubs = _watched.setdefault(provider or _GLOBAL, WeakKeyDictionary())
        self.operations = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of messaging operation initiated by a producer or consumer client.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self.processing = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "Duration of processing operation.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self.sent = meter.create_counter(
            "messaging.client.sent.messages",
            "{message}",
            "Number of messages producer attempted to send to the broker.",
        )
        self.happenings = meter.create_counter(
            "pgpubsub.hub.events", "{event}", "What hubs told their observer, but for what is measured otherwise."
        )
        meter.create_observable_counter(
            "messaging.client.consumed.messages",
            [partial(self._observe, lambda stats: stats.delivered, RECEIVED)],
            "{message}",
            "Number of messages that were delivered to the application.",
        )
        for name, (unit, description, sum_of) in COUNTED.items():
            meter.create_observable_counter(name, [partial(self._observe, sum_of, {})], unit, description)
        for name, (unit, description, value_of) in MEASURED.items():
            meter.create_observable_gauge(name, [partial(self._observe, value_of, {})], unit, description)
        meter.create_observable_gauge("pgpubsub.hub.live", [self._liveness], "1", "1 if notifications arrive, or 0.")

    def watch(self, hub: AsyncHub | Hub, attributes: Attributes) -> None:
        """Tell of `hub`'s figures, as long as it is there."""
        self._hubs[hub] = {**self._everywhere, **attributes}

    def _observe(
        self, value_of: Callable[[HubStats], float | None], more: Attributes, _: CallbackOptions
    ) -> Iterator[Observation]:
        for hub, attributes in list(self._hubs.items()):
            if (value := value_of(hub.stats())) is not None:
                yield Observation(value, {**attributes, **more})

    def _liveness(self, _: CallbackOptions) -> Iterator[Observation]:
        for hub, attributes in list(self._hubs.items()):
            if (state := hub.state).status not in (HubStatus.IDLE, HubStatus.CLOSED):  # which are neither live nor not
                yield Observation(int(state.live), attributes)
