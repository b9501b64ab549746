"""What fails of the program's own telemetry, or cannot be carried, changes nothing of what is sent and handled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pgpubsub import AsyncHub, Entry, Hub, Notify, PayloadError
from pgpubsub.contrib.opentelemetry import Telemetry
from pgpubsub.core.entries import new_entry
from pgpubsub.core.headers import Headed
from pgpubsub.hubs.outgoing import traced
from pgpubsub.streams.description import traced as traced_entries
from pgpubsub.testing import MemoryServer
from tests.contract.spans import Recorded

PATIENCE = 20.0


def test_a_propagator_and_a_template_that_fail_do_no_harm(installed: str, channel: str) -> None:
    class Failing(TraceContextTextMapPropagator):
        def extract(self, *args: Any, **keywords: Any) -> Any:
            raise RuntimeError

        def inject(self, *args: Any, **keywords: Any) -> Any:
            raise RuntimeError

    recorded = Recorded(propagator=Failing(), template=lambda name: name[1000])
    handled: list[Any] = []
    with Hub(installed, tracing=recorded.telemetry) as hub:
        hub.stream(channel).append("17")
        hub.stream(channel).process("billing", handled.append, follow=False)
    assert len(handled) == len(recorded.processed) == 1


class RaisingProcessor(SpanProcessor):
    """Raises where a span begins, or ends."""

    def __init__(self, where: str) -> None:
        setattr(self, where, self._raise)

    def _raise(self, *args: Any, **keywords: Any) -> None:
        raise RuntimeError("a span processor's own fault")


class RaisingSampler(Sampler):
    def should_sample(self, *args: Any, **keywords: Any) -> Any:
        raise RuntimeError("a sampler's own fault")

    def get_description(self) -> str:
        return "raises"


def raising(where: str) -> TracerProvider:
    if where == "sampler":
        return TracerProvider(sampler=RaisingSampler())
    provider = TracerProvider()
    provider.add_span_processor(RaisingProcessor(where))
    return provider


@pytest.mark.parametrize("where", ["on_start", "on_end", "sampler"])
@pytest.mark.parametrize("face", ["threads", "tasks"])
def test_parts_of_the_sdk_that_raise_change_nothing_of_what_is_sent_and_handled(
    installed: str, channel: str, where: str, face: str
) -> None:
    telemetry = Telemetry(raising(where), carry_in_notifications=True)
    handled: list[str] = []

    async def handle(entry: Entry[Any]) -> None:
        handled.append(entry.payload)

    async def main() -> None:
        async with AsyncHub(installed, tracing=telemetry) as hub:
            await hub.notify(channel, "1")
            await hub.stream(channel).append("2")
            await hub.stream(channel).process("billing", handle, follow=False, backoff=0.001)

    with Hub(installed) as plain, plain.subscribe(channel) as events:
        if face == "tasks":
            asyncio.run(main())
        else:
            with Hub(installed, tracing=telemetry) as hub:
                hub.notify(channel, "1")
                hub.stream(channel).append("2")
                process = hub.stream(channel).process
                process("billing", lambda entry: handled.append(entry.payload), follow=False, backoff=0.001)
        event = events.get(PATIENCE)
        with telemetry.processing(event):
            pass
        with pytest.raises(LookupError), telemetry.processing(event):
            raise LookupError
        plain.stream(channel).process("billing", lambda entry: handled.append("again"), follow=False)
    assert isinstance(event, Notify)
    assert event.payload == "1"
    assert handled == ["2"]
    assert not trace.get_current_span().get_span_context().is_valid


# -- headers that are nested too deep to be added to


def nested(depth: int) -> str:
    return f'{{"a":{"[" * depth}{"]" * depth}}}'


def test_headers_that_can_be_sent_can_be_sent_with_telemetry() -> None:
    """How deep they may be nested depends on how deep Python's stack is where they are written, and read again."""
    value: list[Any] = []
    server, telemetry = MemoryServer(), Recorded(carry_in_notifications=True).telemetry
    with server.hub(tracing=telemetry) as hub, server.hub() as plain:
        for depth in range(1000):
            value = [value]
            if depth > 900:
                try:
                    plain.notify("a", "17", headers={"a": value})
                except PayloadError:
                    break
                hub.notify("a", "17", headers={"a": value})


def test_headers_that_cannot_be_added_to_go_as_they_are() -> None:
    telemetry = Recorded(carry_in_notifications=True).telemetry
    message = ("a", Headed(nested(100_000), "17"))
    with traced(telemetry, [message], 1 << 24) as [sent]:
        assert sent is message
    entry = new_entry("a", "17", 1 << 24)._replace(headers=nested(100_000))
    with traced_entries(telemetry, [entry], 1 << 24, many=False) as [appended]:
        assert appended is entry
