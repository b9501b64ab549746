"""OpenTelemetry: spans and metrics of what hubs send and handle, and the context of a trace carried from one end to the
other (the extra `opentelemetry`).

    telemetry = Telemetry()
    with pgpubsub.Hub("dbname=app", tracing=telemetry) as hub:
        hub.stream("orders").append("17")

Names are those of OpenTelemetry's semantic conventions for messaging. docs/opentelemetry.md is the manual.
"""

from __future__ import annotations

try:
    import opentelemetry.metrics
    import opentelemetry.trace  # noqa: F401
except ImportError as error:
    raise ImportError(
        "pgpubsub.contrib.opentelemetry needs OpenTelemetry: pip install 'pgpubsub[binary,opentelemetry]'",
        name=error.name,
    ) from error

from pgpubsub.contrib.opentelemetry.telemetry import Telemetry

__all__ = ["Telemetry"]
