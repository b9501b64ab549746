"""One trace from a request to a worker that fails at first, by OpenTelemetry, on the console.

    pip install 'pgpubsub[binary,opentelemetry]' opentelemetry-sdk
    python opentelemetry_orders.py

A program of yours would export to a collector instead: see docs/opentelemetry.md.
"""

import logging

import psycopg
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

import pgpubsub
import pgpubsub.streams
from pgpubsub.contrib.opentelemetry import Telemetry

DSN = "dbname=test user=postgres"
traces: list[int] = []


def line(span: ReadableSpan) -> str:
    """A span that has ended, with the number of its trace."""
    if span.context.trace_id not in traces:
        traces.append(span.context.trace_id)
    number = traces.index(span.context.trace_id) + 1
    return f"trace {number}: {span.kind.name.lower()} {span.name!r} {span.status.description or ''}".rstrip() + "\n"


def charge(entry: pgpubsub.Entry, attempts: list[int] = []) -> None:  # noqa: B006
    """What a worker does."""
    attempts.append(entry.id)
    with tracer.start_as_current_span("charge the card"):
        if len(attempts) == 1:
            raise TimeoutError("the bank does not answer")


provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=line)))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("shop")
telemetry = Telemetry(carry_in_notifications=True)
logging.getLogger("pgpubsub").addHandler(logging.NullHandler())

with psycopg.connect(DSN) as connection:
    pgpubsub.streams.install(connection)

with pgpubsub.Hub(DSN, tracing=telemetry) as hub, hub.subscribe("news") as events:
    orders = hub.stream("traced orders")
    with tracer.start_as_current_span("POST /orders"):
        orders.append("17")
    orders.process("billing", charge, follow=False, backoff=0.01)

    with tracer.start_as_current_span("POST /news"):
        hub.notify("news", "it rains")
    event = events.get(timeout=5)
    assert isinstance(event, pgpubsub.Notify)
    with telemetry.processing(event):
        print(event.payload)
