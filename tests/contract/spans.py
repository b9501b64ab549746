"""What is recorded by OpenTelemetry's own SDK, for tests to look at."""

from __future__ import annotations

import threading
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, Tracer

from pgpubsub.contrib.opentelemetry import Telemetry

__all__ = ["Recorded", "attributes", "is_child", "links", "trace_of"]


class Recorded(SpanProcessor):
    """Every span, from its beginning to its end, and every measurement."""

    def __init__(self, **options: Any) -> None:
        self._lock = threading.Lock()
        self.ended: list[ReadableSpan] = []
        self.open = 0
        provider = TracerProvider()
        provider.add_span_processor(self)
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])
        self.tracer: Tracer = provider.get_tracer("the program")
        self.telemetry = Telemetry(provider, self.meters, **options)

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        with self._lock:
            self.open += 1

    def on_end(self, span: ReadableSpan) -> None:
        with self._lock:
            self.open -= 1
            self.ended.append(span)

    def of(self, kind: SpanKind) -> list[ReadableSpan]:
        """Those that have ended, in that order."""
        return [span for span in self.ended if span.kind is kind]

    @property
    def sent(self) -> list[ReadableSpan]:
        return self.of(SpanKind.PRODUCER)

    @property
    def processed(self) -> list[ReadableSpan]:
        return self.of(SpanKind.CONSUMER)

    def named(self, name: str) -> ReadableSpan:
        """The one of this name."""
        [span] = [span for span in self.ended if span.name == name]
        return span

    def measured(self, name: str) -> dict[frozenset[tuple[str, Any]], Any]:
        """Of an instrument, what there is for each set of attributes: a sum or a last value, or how many."""
        points = {}
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        for point in metric.data.data_points:
                            attributes = frozenset((point.attributes or {}).items())
                            points[attributes] = point.value if hasattr(point, "value") else point.count
        return points


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    its: int = span.context.trace_id
    return its


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    return span.parent is not None and parent.context is not None and span.parent.span_id == parent.context.span_id


def links(span: ReadableSpan, *others: ReadableSpan) -> bool:
    """Whether it links to these and nothing else, in this order."""
    return [link.context.span_id for link in span.links] == [
        other.context.span_id for other in others if other.context is not None
    ]
