"""Telemetry: what a hub is given as `tracing`, and programs use beside it.

A call that sends is one span, which begins and ends in the task or thread that calls. What handles a message is
another, in whose context the handler runs. Neither keeps anything once it has ended, however it did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from time import perf_counter
from types import TracebackType
from typing import Any, Self

from opentelemetry import context as current
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

import pgpubsub
from pgpubsub.aio import AsyncHub
from pgpubsub.contrib.opentelemetry.carriers import Carriers
from pgpubsub.contrib.opentelemetry.metrics import Attributes, Instruments
from pgpubsub.contrib.opentelemetry.subjects import Subject, subject_of
from pgpubsub.events import Gap
from pgpubsub.status import Observation
from pgpubsub.threads.hub import Hub
from pgpubsub.tracing import Outgoing

__all__ = ["Telemetry"]

SCHEMA = "https://opentelemetry.io/schemas/1.37.0"
"""The version of the conventions whose names these are."""

SYSTEM = "postgresql"

MEASURED_OTHERWISE = frozenset({"sent", "send_failed", "appended", "append_failed", "handled", "handling_failed"})
"""What is told to an observer, and measured with the spans."""


class Telemetry:
    """Spans, metrics and propagation for hubs: give it to them as `tracing`. One serves any number of hubs.

    Without a configured SDK it does next to nothing, and costs little.

    Args:
        tracer_provider, meter_provider, propagator: in place of OpenTelemetry's global ones.
        carry_in_notifications: whether notifications carry the context of a trace, too. It makes a frame of each, so
            that psql, and whoever else listens without pgpubsub, sees that in place of the plain text. Streams'
            entries always carry it.
        template: returns what the name of a channel or stream is made of, such as `user.{id}` for `user.17`, where
            there are very many; None for one that stands for itself. Spans and metrics are named so.
        attributes: of each span and each measurement, such as `{"server.address": "db.example.com"}`.

    >>> from pgpubsub.contrib.opentelemetry import Telemetry
    >>> telemetry = Telemetry()
    >>> with pgpubsub.Hub(dsn, tracing=telemetry) as hub:
    ...     with hub.subscribe("orders") as events:
    ...         hub.notify("orders", "17")
    ...         event = events.get(timeout=5)
    ...         with telemetry.processing(event):
    ...             print(event.payload)
    17
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        propagator: TextMapPropagator | None = None,
        *,
        carry_in_notifications: bool = False,
        template: Callable[[str], str | None] | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> None:
        self._tracer_provider = tracer_provider
        self._meter_provider = meter_provider
        name, version = "pgpubsub", pgpubsub.__version__
        self._tracer = trace.get_tracer(name, version, tracer_provider, SCHEMA)
        self._everywhere = {"messaging.system": SYSTEM, **(attributes or {})}
        meter = metrics.get_meter(name, version, meter_provider, SCHEMA)
        self._instruments = Instruments(meter_provider, meter, self._everywhere)
        self._carriers = Carriers(propagator)
        self._carry_in_notifications = carry_in_notifications
        self._template = template

    # -- for programs

    def processing(self, event: Any, destination: str | None = None) -> AbstractContextManager[object]:
        """A span around the handling of what was received, in whose context that runs:

            for event in events:
                with telemetry.processing(event):
                    handle(event)

        It links to the call that sent the message, and is a part of that trace, unless a span is under way here: then
        it is a part of that one's. What handlers of `process` do has such a span by itself.

        Args:
            event: a `Notify`, an `Entry`, an `Undecodable`, or what a consumer has handed out. For a `Gap`, and None,
                there is no span.
            destination: the name of the stream, which an entry that comes from a reader does not know.
        """
        if event is None or isinstance(event, Gap):
            return nullcontext()
        return _Processing(self, subject_of(event, destination), is_own=False)

    def headers(self, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Headers that carry the present context, and `own` ones: for what goes out in a transaction of yours.

        pgpubsub.append(conn, "orders", "17", headers=telemetry.headers())
        """
        return {**self._carriers.fill(current.get_current()), **(own or {})}

    def watch(self, hub: AsyncHub | Hub, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        """Have metrics tell of this hub's figures, with these attributes, as long as it is there. Of several hubs with
        the same attributes one is told of, so give them different ones."""
        self._instruments.watch(hub, attributes or {})

    def observe(self, observation: Observation) -> None:
        """Counts what happens to a hub, such as lost connections and gaps: give it to the hub as `observe`."""
        if observation.name not in MEASURED_OTHERWISE:
            self._instruments.happenings.add(1, {**self._everywhere, "pgpubsub.event": observation.name})

    @property
    def has_sdk(self) -> bool:
        """Whether there is an SDK to make and export anything."""
        return any(hasattr(provider, "force_flush") for provider in self._providers)

    def flush(self, timeout: float = 5.0) -> None:
        """Have the SDK export what it has, for at most `timeout` seconds each of spans and of metrics. For the end of a
        program that a signal ends; otherwise the SDK does it by itself."""
        for provider in self._providers:
            if (force_flush := getattr(provider, "force_flush", None)) is not None:
                force_flush(int(timeout * 1000))

    @property
    def _providers(self) -> tuple[object, object]:
        return (
            self._tracer_provider or trace.get_tracer_provider(),
            self._meter_provider or metrics.get_meter_provider(),
        )

    # -- for hubs, see `pgpubsub.tracing`

    def sending(self, outgoing: Outgoing) -> _Sending:
        """Around a call that sends."""
        return _Sending(self, outgoing)

    def handling(self, in_hand: Any) -> AbstractContextManager[object]:
        """Around each attempt of a handler. A part of the message's trace, wherever `process` was called: that goes on
        for ever, and is no place for what it handles."""
        return _Processing(self, subject_of(in_hand, None), is_own=True)

    def continuing(self, headers: Mapping[str, Any]) -> AbstractContextManager[object]:
        """Around what is done for somebody who may have sent a context with `headers`, unless a span is under way, as
        one of a framework's own instrumentation."""
        if trace.get_current_span().get_span_context().is_valid:
            return nullcontext()
        return _Attached(self._carriers.read(headers, current.get_current()))

    def _begun(
        self,
        name: str,
        context: Context | None,
        kind: SpanKind,
        attributes: Mapping[str, AttributeValue],
        links: Sequence[Link] | None,
    ) -> trace.Span:
        """A span; where the SDK's parts raise, which may be the user's own, one that is none."""
        try:
            return self._tracer.start_span(name, context, kind, attributes, links)
        except Exception:
            return trace.INVALID_SPAN

    def _about(self, operation: str, kind: str, destination: str | None) -> tuple[str, dict[str, AttributeValue]]:
        """The name of a span, and what it and its measurements have as attributes."""
        about = {**self._everywhere, "messaging.operation.name": operation, "messaging.operation.type": kind}
        if destination is None:
            return operation, about
        template = None
        if self._template is not None:
            with suppress(Exception):  # of the user's function, which is no reason not to send
                template = self._template(destination)
        if template is not None:
            return f"{operation} {template}", {**about, "messaging.destination.template": template}
        return f"{operation} {destination}", {**about, "messaging.destination.name": destination}


class _Attached:
    """A context, for a while."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = current.attach(self._context)

    def __exit__(self, *_: object) -> None:
        current.detach(self._token)


class _Sending:
    """The span of a call that sends. It is not made the current one: nothing of the user's is called within."""

    __slots__ = ("_about", "_begun", "_carried", "_outgoing", "_span", "_telemetry")

    def __init__(self, telemetry: Telemetry, outgoing: Outgoing) -> None:
        self._telemetry = telemetry
        self._outgoing = outgoing
        self._carried: dict[str, str] | None = None

    def __enter__(self) -> Self:
        outgoing = self._outgoing
        name, self._about = self._telemetry._about(outgoing.operation, "send", outgoing.destination)
        attributes = dict(self._about)
        if outgoing.destination is not None:
            attributes["messaging.destination.name"] = outgoing.destination
        if outgoing.messages is not None:
            attributes["messaging.batch.message_count"] = outgoing.messages
        elif outgoing.size is not None:
            attributes["messaging.message.body.size"] = outgoing.size
        self._begun = perf_counter()
        self._span = self._telemetry._begun(name, None, SpanKind.PRODUCER, attributes, None)
        return self

    def carried(self, own: dict[str, Any] | None) -> Mapping[str, Any] | None:
        """See `pgpubsub.tracing.Sending`. A context that somebody has given to a message is left as it is."""
        carriers = self._telemetry._carriers
        if own and (custom := carriers.span_context(own)) is not None:
            self._span.add_link(custom)
            return own
        if self._outgoing.operation == "notify" and not self._telemetry._carry_in_notifications:
            return own
        if self._carried is None:
            self._carried = carriers.fill(trace.set_span_in_context(self._span))
        return {**self._carried, **(own or {})} if self._carried else own

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = perf_counter() - self._begun
        with suppress(Exception):  # of a processor or an exporter: what is sent is sent
            about = _concluded(self._span, self._about, error)
            instruments = self._telemetry._instruments
            instruments.operations.record(seconds, about)
            instruments.sent.add(self._outgoing.messages or 1, about)


class _Processing:
    """The span of one attempt to handle something, which is the current one meanwhile."""

    def __init__(self, telemetry: Telemetry, subject: Subject, *, is_own: bool) -> None:
        self._telemetry = telemetry
        self._subject = subject
        self._is_own = is_own

    def __enter__(self) -> trace.Span:
        telemetry, subject = self._telemetry, self._subject
        context, links = self._place()
        name, about = telemetry._about("process", "process", subject.destination)
        attributes = {**about, **subject.attributes}
        if subject.destination is not None:
            attributes["messaging.destination.name"] = subject.destination
        group = subject.attributes.get("messaging.consumer.group.name")
        self._about = about if group is None else {**about, "messaging.consumer.group.name": group}
        self._begun = perf_counter()
        self._span = telemetry._begun(name, context, SpanKind.CONSUMER, attributes, links)
        self._token = current.attach(trace.set_span_in_context(self._span, context))
        return self._span

    def _place(self) -> tuple[Context, list[Link]]:
        """Below what the span stands, and what it links to."""
        here = current.get_current()
        ambient = trace.get_current_span(here)
        under_way = ambient.get_span_context().is_valid
        apart = trace.set_span_in_context(trace.INVALID_SPAN, here) if under_way else here
        sent = [self._telemetry._carriers.read(headers, apart) for headers in self._subject.headers]
        creators = [trace.get_current_span(context).get_span_context() for context in sent]
        links = [Link(creator) for creator in creators if creator.is_valid]
        context = apart if self._subject.is_batch else sent[0]
        if under_way and self._is_own:
            links.append(Link(ambient.get_span_context()))
        elif under_way:
            context = trace.set_span_in_context(ambient, context)
        return context, links

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = perf_counter() - self._begun
        current.detach(self._token)
        with suppress(Exception):  # what is handled is handled
            self._telemetry._instruments.processing.record(seconds, _concluded(self._span, self._about, error))


def _concluded(span: trace.Span, about: Attributes, error: BaseException | None) -> Attributes:
    """End a span; what measurements of the same have as attributes."""
    if error is not None:
        its = type(error).__qualname__
        about = {**about, "error.type": its}
        if span.is_recording():
            span.set_attribute("error.type", its)
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, f"{its}: {error}"))
    span.end()
    return about
