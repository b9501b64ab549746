"""Prometheus: what hubs do, and what a database tells of streams, groups and the notification queue, as metrics.

    metrics = HubMetrics()
    hub = pgpubsub.Hub("dbname=app", observe=metrics.observer("app"))
    metrics.watch("app", hub)

Names, types and labels are documented in docs/observability.md. It needs the extra `prometheus`.
"""

from __future__ import annotations

try:
    import prometheus_client as _  # noqa: F401
except ImportError as error:
    raise ImportError(
        "pgpubsub.contrib.prometheus needs prometheus-client: pip install 'pgpubsub[binary,prometheus]'",
        name=error.name,
    ) from error

from pgpubsub.contrib.prometheus.database import DatabaseCollector
from pgpubsub.contrib.prometheus.hubs import HubMetrics

__all__ = ["DatabaseCollector", "HubMetrics"]
