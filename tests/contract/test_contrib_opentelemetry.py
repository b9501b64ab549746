"""One trace from who sends to who handles, as the SDK of OpenTelemetry records it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

import pgpubsub
from pgpubsub import AsyncHub, Channel, Closed, Entry, Gap, Hub, Notify, SendTimeout, ServerRefused, Undecodable
from pgpubsub.contrib.opentelemetry import Telemetry
from pgpubsub.testing import MemoryServer
from tests.contract.faces import take
from tests.contract.sending import wait_until
from tests.contract.spans import Recorded, attributes, is_child, links, trace_of

PATIENCE = 20.0


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """Spans of hubs whose notifications carry the context. All have ended when the test has."""
    recorded = Recorded(carry_in_notifications=True)
    yield recorded
    assert recorded.open == 0
    assert not trace.get_current_span().get_span_context().is_valid


# -- from one end to the other


def test_one_trace_runs_from_notify_to_a_subscriber(recorded: Recorded, dsn: str, channel: str) -> None:
    telemetry = recorded.telemetry
    with Hub(dsn, tracing=telemetry) as hub, hub.subscribe(channel) as events:
        with recorded.tracer.start_as_current_span("request"):
            hub.notify(channel, "été", headers={"by": "Ann"})
        event = events.get(PATIENCE)
        assert isinstance(event, Notify)
        with telemetry.processing(event), recorded.tracer.start_as_current_span("work"):
            pass
    assert event.headers is not None
    assert event.headers["by"] == "Ann"
    request, sent = recorded.named("request"), recorded.named(f"notify {channel}")
    processed, work = recorded.named(f"process {channel}"), recorded.named("work")
    assert is_child(sent, request)
    assert is_child(processed, sent)
    assert links(processed, sent)
    assert is_child(work, processed)
    assert attributes(sent) == {
        "messaging.system": "postgresql",
        "messaging.operation.name": "notify",
        "messaging.operation.type": "send",
        "messaging.destination.name": channel,
        "messaging.message.body.size": 5,
    }
    assert attributes(processed) == {
        "messaging.system": "postgresql",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": channel,
        "messaging.message.body.size": 5,
    }
    assert [sent.kind, processed.kind] == [trace.SpanKind.PRODUCER, trace.SpanKind.CONSUMER]


def test_the_same_with_tasks(recorded: Recorded, dsn: str, channel: str) -> None:
    telemetry = recorded.telemetry

    async def main() -> None:
        async with AsyncHub(dsn, tracing=telemetry) as hub, hub.subscribe(channel) as events:
            with recorded.tracer.start_as_current_span("request"):
                await hub.notify(channel, "17")
            with telemetry.processing(await events.get(PATIENCE)):
                await asyncio.sleep(0)
                with recorded.tracer.start_as_current_span("work"):
                    pass

    asyncio.run(main())
    sent, processed = recorded.named(f"notify {channel}"), recorded.named(f"process {channel}")
    assert is_child(sent, recorded.named("request"))
    assert is_child(processed, sent)
    assert is_child(recorded.named("work"), processed)


def test_notifications_stay_plain_text_unless_they_are_told_to_carry(dsn: str, channel: str) -> None:
    recorded = Recorded()
    with Hub(dsn, tracing=recorded.telemetry) as hub, psycopg.connect(dsn, autocommit=True) as stranger:
        stranger.execute(f'LISTEN "{channel}"')
        hub.notify(channel, "17")
        hub.notify(channel, "18", headers={"by": "Ann"})
        heard = [event.payload for event in stranger.notifies(timeout=PATIENCE, stop_after=2)]
        with recorded.telemetry.processing(Notify(1, channel, "17")):
            pass
    assert heard[0] == "17"
    assert heard[1].endswith(' 1/1 {"by":"Ann"}\n18')
    assert len(recorded.sent) == 2
    [processed] = recorded.processed
    assert (processed.parent, list(processed.links)) == (None, [])


@pytest.mark.parametrize("face", ["threads", "tasks", "tasks with a handler that blocks"])
def test_one_trace_runs_from_append_to_each_attempt_of_a_handler(
    recorded: Recorded, installed: str, channel: str, face: str
) -> None:
    attempts = []

    def handle(entry: Entry[Any]) -> None:
        attempts.append(entry.headers)
        with recorded.tracer.start_as_current_span(f"attempt {len(attempts)}"):
            if len(attempts) < 3:
                raise LookupError("no such customer")

    async def handle_it(entry: Entry[Any]) -> None:
        handle(entry)

    async def main() -> None:
        async with AsyncHub(installed, tracing=recorded.telemetry) as hub:
            stream = hub.stream(channel)
            with recorded.tracer.start_as_current_span("request"):
                id = await stream.append("17", key="customer 4", headers={"by": "Ann"})
            handler = handle_it if face == "tasks" else handle
            await stream.process("billing", handler, follow=False, backoff=0.001)
            ids.append(id)

    ids: list[int] = []
    if face == "threads":
        with Hub(installed, tracing=recorded.telemetry) as hub:
            stream = hub.stream(channel)
            with recorded.tracer.start_as_current_span("request"):
                ids.append(stream.append("17", key="customer 4", headers={"by": "Ann"}))
            stream.process("billing", handle, follow=False, backoff=0.001)
    else:
        asyncio.run(main())
    sent = recorded.named(f"append {channel}")
    assert is_child(sent, recorded.named("request"))
    assert attributes(sent)["messaging.destination.name"] == channel
    assert len(recorded.processed) == 3
    for number, processed in enumerate(recorded.processed, 1):
        assert processed.name == f"process {channel}"
        assert is_child(processed, sent)
        assert links(processed, sent)
        assert is_child(recorded.named(f"attempt {number}"), processed)
        told = attributes(processed)
        assert told["messaging.consumer.group.name"] == "billing"
        assert told["messaging.message.id"] == str(ids[0])
        assert told["messaging.postgresql.message.delivery_attempt"] == number
        assert told.get("error.type") == (None if number == 3 else "LookupError")
        assert processed.status.status_code is (StatusCode.UNSET if number == 3 else StatusCode.ERROR)
        assert [event.name for event in processed.events] == ([] if number == 3 else ["exception"])
    assert "customer 4" not in str([attributes(span) for span in recorded.ended])
    assert all(headers and headers["by"] == "Ann" and "traceparent" in headers for headers in attempts)


@pytest.mark.parametrize("face", ["threads", "tasks"])
def test_a_batch_has_one_span_that_links_to_who_sent_each(
    recorded: Recorded, installed: str, channel: str, face: str, admin: psycopg.Connection[Any]
) -> None:
    handled = []

    async def handle(entries: list[Any]) -> None:
        handled.append(len(entries))

    async def main() -> None:
        async with AsyncHub(installed, tracing=recorded.telemetry) as hub:
            await hub.stream(channel).process("billing", handle, batch=10, follow=False)

    with Hub(installed, tracing=recorded.telemetry) as hub:
        stream = hub.stream(channel)
        stream.append("1")
        stream.append("2")
        pgpubsub.append(admin, channel, "3")
        if face == "threads":
            stream.process("billing", lambda entries: handled.append(len(entries)), batch=10, follow=False)
    if face == "tasks":
        asyncio.run(main())
    assert handled == [3]
    [processed] = recorded.processed
    assert links(processed, *recorded.sent)
    assert processed.parent is None
    assert attributes(processed)["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in attributes(processed)


def test_what_handlers_do_is_a_part_of_the_messages_trace_wherever_process_was_called(
    recorded: Recorded, installed: str, channel: str, admin: psycopg.Connection[Any]
) -> None:
    with Hub(installed, tracing=recorded.telemetry) as hub:
        stream = hub.stream(channel)
        stream.append("1")
        pgpubsub.append(admin, channel, "of nobody who traces")
        with recorded.tracer.start_as_current_span("main"):
            stream.process("billing", lambda entry: None, follow=False)
    main, [sent] = recorded.named("main"), recorded.sent
    one, other = recorded.processed
    assert is_child(one, sent)
    assert links(one, sent, main)
    assert other.parent is None
    assert links(other, main)


def test_what_a_program_handles_within_a_span_is_a_part_of_that(recorded: Recorded) -> None:
    telemetry = recorded.telemetry
    with MemoryServer().hub(tracing=telemetry) as hub, hub.subscribe("a") as events:
        hub.notify("a", "17")
        event = events.get(PATIENCE)
        with recorded.tracer.start_as_current_span("main"), telemetry.processing(event):
            pass
    [processed] = recorded.processed
    assert is_child(processed, recorded.named("main"))
    assert links(processed, *recorded.sent)


def test_whoever_iterates_a_consumer_opens_the_span(recorded: Recorded, installed: str, channel: str) -> None:
    telemetry = recorded.telemetry
    with Hub(installed, tracing=telemetry) as hub:
        stream = hub.stream(channel, int)
        stream.append(17)
        failing = True
        for delivery in stream.consume("billing", follow=False, backoff=0.001):
            with delivery, telemetry.processing(delivery):
                failing, fails = False, failing
                assert not fails
        with stream.read(follow=False) as reader, telemetry.processing(next(reader), channel):
            pass
    first, second, third = recorded.processed
    assert [span.name for span in recorded.processed] == [f"process {channel}"] * 3
    assert [attributes(span).get("error.type") for span in (first, second)] == ["AssertionError", None]
    assert attributes(second)["messaging.postgresql.message.delivery_attempt"] == 2
    assert "messaging.consumer.group.name" not in attributes(third)
    assert all(is_child(span, recorded.sent[0]) for span in recorded.processed)


def test_what_cannot_be_decoded_is_handled_too_and_a_gap_is_not(recorded: Recorded) -> None:
    telemetry, server = recorded.telemetry, MemoryServer()
    with server.hub(tracing=telemetry) as hub, hub.subscribe(Channel("a", int)) as events:
        hub.notify("a", "seventeen")
        event = events.get(PATIENCE)
        assert isinstance(event, Undecodable)
        with telemetry.processing(event):
            pass
        server.restart()
        gap = events.get(PATIENCE)
        assert isinstance(gap, Gap)
        with telemetry.processing(gap), telemetry.processing(None):
            pass
    [processed] = recorded.processed
    assert is_child(processed, *recorded.sent)
    assert attributes(processed)["messaging.message.body.size"] == len("seventeen")
    with pytest.raises(TypeError, match="a receiver delivers no str"):
        telemetry.processing("text")


def test_what_goes_out_in_a_transaction_of_ones_own_is_given_the_context(
    recorded: Recorded, installed: str, channel: str
) -> None:
    telemetry = recorded.telemetry
    with Hub(installed) as hub, hub.subscribe(channel) as events:
        with recorded.tracer.start_as_current_span("request"), psycopg.connect(installed) as conn:
            pgpubsub.notify(conn, channel, "17", headers=telemetry.headers())
            pgpubsub.append(conn, channel, "18", headers=telemetry.headers({"by": "Ann"}))
        with hub.stream(channel).read(follow=False) as reader:
            for event in (events.get(PATIENCE), next(reader)):
                with telemetry.processing(event, channel):
                    pass
    request = recorded.named("request")
    assert [is_child(span, request) for span in recorded.processed] == [True, True]


# -- many


@pytest.mark.parametrize("face", ["threads", "tasks"])
def test_notify_many_is_one_span_whose_context_all_of_them_carry(recorded: Recorded, face: str) -> None:
    server, telemetry = MemoryServer(), recorded.telemetry

    async def main() -> None:
        async with server.async_hub(tracing=telemetry) as hub:
            await hub.notify_many([("a", "1"), ("a", "1")])
            await hub.notify_many([("a", "2"), ("b", "3")], headers={"by": "Ann"})
            await hub.notify_stream(("a", str(number)) for number in range(1001))

    with server.hub(tracing=telemetry) as hub, hub.subscribe("a", "b", capacity=5000) as events:
        if face == "tasks":
            asyncio.run(main())
        else:
            hub.notify_many([("a", "1"), ("a", "1")])
            hub.notify_many([("a", "2"), ("b", "3")], headers={"by": "Ann"})
            hub.notify_stream(("a", str(number)) for number in range(1001))
        received = take(events, 1005)
    one, other, *rest = recorded.sent
    assert (one.name, other.name) == ("notify a", "notify")
    assert attributes(one)["messaging.batch.message_count"] == 2
    assert "messaging.message.body.size" not in attributes(one)
    assert "messaging.destination.name" not in attributes(other)
    assert [attributes(span)["messaging.batch.message_count"] for span in rest] == [1000, 1]
    for span, events_of in zip(
        recorded.sent, (received[:2], received[2:4], received[4:-1], received[-1:]), strict=True
    ):
        for event in events_of:
            assert isinstance(event, Notify)
            assert event.headers is not None
            assert f"{trace_of(span):032x}" in event.headers["traceparent"]
    assert all(event.headers["by"] == "Ann" for event in received[2:4] if isinstance(event, Notify) and event.headers)


@pytest.mark.parametrize("face", ["threads", "tasks"])
def test_append_many_is_one_span_whose_context_all_of_them_carry(
    recorded: Recorded, installed: str, channel: str, face: str
) -> None:
    async def main() -> None:
        async with AsyncHub(installed, tracing=recorded.telemetry) as hub:
            await hub.stream(channel).append_many(["1", "2"], headers=lambda value: {"value": value})

    with Hub(installed, tracing=recorded.telemetry) as hub:
        stream = hub.stream(channel)
        if face == "tasks":
            asyncio.run(main())
        else:
            stream.append_many(["1", "2"], headers=lambda value: {"value": value})
        with stream.read(follow=False) as reader:
            entries: list[Any] = list(reader)
    [sent] = recorded.sent
    assert attributes(sent)["messaging.batch.message_count"] == 2
    assert [entry.headers["value"] for entry in entries] == ["1", "2"]
    assert all(f"{trace_of(sent):032x}" in entry.headers["traceparent"] for entry in entries)


@pytest.mark.parametrize("face", ["threads", "tasks", "tasks of another loop"])
def test_callers_that_share_a_statement_keep_their_own_contexts(
    recorded: Recorded, installed: str, channel: str, face: str
) -> None:
    """Of notifications, and of entries."""
    number = 100

    def call(hub: Hub, which: int) -> None:
        with recorded.tracer.start_as_current_span(f"caller {which}"):
            hub.notify(channel, str(which))
            hub.stream(channel).append(str(which))

    async def call_async(hub: Any, which: int) -> None:
        with recorded.tracer.start_as_current_span(f"caller {which}"):
            if isinstance(hub, AsyncHub):
                await hub.notify(channel, str(which))
                await hub.stream(channel).append(str(which))
            else:
                await hub.notify_async(channel, str(which))

    async def main() -> None:
        if face == "tasks":
            async with AsyncHub(installed, tracing=recorded.telemetry) as hub:
                await asyncio.gather(*[call_async(hub, which) for which in range(number)])
        else:
            with Hub(installed, tracing=recorded.telemetry) as other:
                await asyncio.gather(*[call_async(other, which) for which in range(number)])

    with Hub(installed, tracing=recorded.telemetry) as hub, hub.subscribe(channel) as events:
        if face == "threads":
            with ThreadPoolExecutor(20) as pool:
                list(pool.map(lambda which: call(hub, which), range(number)))
        else:
            asyncio.run(main())
        received: list[Any] = take(events, number)
        with hub.stream(channel).read(follow=False) as reader:
            received += list(reader)
    assert len(received) == len(recorded.sent) == number * (1 if face == "tasks of another loop" else 2)
    for span in recorded.sent:
        [caller] = [one for one in recorded.ended if is_child(span, one)]
        its = [event.payload for event in received if _span_of(event) == span.context.span_id]
        assert [f"caller {payload}" for payload in its] == [caller.name]


def _span_of(event: Any) -> int:
    return int(event.headers["traceparent"].split("-")[2], 16)


# -- what goes wrong


def test_a_call_that_fails_ends_its_span_with_the_error(recorded: Recorded, dsn: str, latin1: str) -> None:
    def conninfo() -> str:
        return psycopg.conninfo.make_conninfo(dsn, dbname=latin1)

    hub = Hub(conninfo, tracing=recorded.telemetry)
    with hub:
        hub.notify("a", "é")
        with pytest.raises(ServerRefused):
            hub.notify("a", "日本")
    with pytest.raises(Closed):
        hub.notify("a", "too late")
    fine, refused, late = recorded.sent
    assert fine.status.status_code is StatusCode.UNSET
    assert [attributes(span).get("error.type") for span in recorded.sent] == [None, "ServerRefused", "Closed"]
    assert refused.status.status_code is late.status.status_code is StatusCode.ERROR
    assert (refused.status.description or "").startswith("ServerRefused: ")
    assert [event.name for event in refused.events] == ["exception"]


def test_what_is_wrong_before_anything_is_sent_is_no_span(recorded: Recorded) -> None:
    with MemoryServer().hub(tracing=recorded.telemetry) as hub:
        with pytest.raises(pgpubsub.PayloadError):
            hub.notify("a", "\0")
        with pytest.raises(pgpubsub.PayloadError):
            hub.notify("a", "17", headers={"a": float("nan")})
    assert recorded.sent == []


def test_callers_that_are_cancelled_or_too_late_end_their_spans(recorded: Recorded) -> None:
    async def main() -> None:
        server = MemoryServer()
        async with server.async_hub(tracing=recorded.telemetry, send_timeout=0.3) as hub:
            server.stop()
            calls = [asyncio.create_task(hub.notify("a", str(number))) for number in range(200)]
            while recorded.open < len(calls):
                await asyncio.sleep(0)
            for call in calls[::2]:
                call.cancel()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError, SendTimeout] * 100

    asyncio.run(main())
    assert recorded.open == 0
    types = [attributes(span)["error.type"] for span in recorded.sent]
    assert sorted(types) == ["CancelledError"] * 100 + ["SendTimeout"] * 100


def test_a_handler_that_is_cancelled_ends_its_span(recorded: Recorded, installed: str, channel: str) -> None:
    async def main() -> None:
        async with AsyncHub(installed, tracing=recorded.telemetry) as hub:
            await hub.stream(channel).append("17")
            begun = asyncio.Event()

            async def handle(entry: Entry[Any]) -> None:
                begun.set()
                await asyncio.Event().wait()

            processing = asyncio.create_task(hub.stream(channel).process("billing", handle))
            await asyncio.wait_for(begun.wait(), PATIENCE)
            processing.cancel()
            with suppress(asyncio.CancelledError):
                await processing

    asyncio.run(main())
    [processed] = recorded.processed
    assert attributes(processed)["error.type"] == "CancelledError"


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": 17},
        {"traceparent": "00-no-context-00"},
        {"traceparent": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]},
        {"traceparent": "00-00000000000000000000000000000000-0000000000000000-01"},
        {"tracestate": {"a": 1}, "baggage": None},
        {"traceparent": "x" * 16_000},
    ],
    ids=lambda headers: str(headers)[:40],
)
def test_what_is_no_context_is_none(recorded: Recorded, headers: dict[str, Any]) -> None:
    telemetry, server = recorded.telemetry, MemoryServer()
    with server.hub(tracing=telemetry) as hub, hub.subscribe("a") as events:
        server.notify("a", "17", headers=headers)
        event = events.get(PATIENCE)
        with telemetry.processing(event), telemetry.continuing(headers):
            pass
        hub.notify("a", "18", headers=headers)
    [processed] = recorded.processed
    assert (processed.parent, list(processed.links)) == (None, [])


# -- what is carried


def test_a_context_that_a_message_was_given_is_left_as_it_is(recorded: Recorded) -> None:
    own = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "by": "Ann"}
    with MemoryServer().hub(tracing=recorded.telemetry) as hub, hub.subscribe("a") as events:
        hub.notify("a", "17", headers=own)
        event = events.get(PATIENCE)
    assert isinstance(event, Notify)
    assert event.headers == own
    [sent] = recorded.sent
    assert [f"{link.context.span_id:x}" for link in sent.links] == ["b7ad6b7169203331"]


def test_what_would_become_too_long_goes_without(recorded: Recorded) -> None:
    with MemoryServer().hub(tracing=recorded.telemetry, max_payload=100) as hub, hub.subscribe("a") as events:
        hub.notify("a", "x" * 100)
        hub.notify("a", "x" * 60, headers={"by": "Ann"})
        hub.notify("a", "short")
        received: list[Any] = take(events, 3)
    assert [event.headers and list(event.headers) for event in received] == [None, ["by"], ["traceparent"]]


def test_an_entry_that_would_become_too_long_goes_without(recorded: Recorded, installed: str, channel: str) -> None:
    with Hub(installed, tracing=recorded.telemetry, max_payload=100) as hub:
        stream = hub.stream(channel)
        stream.append("x" * 100)
        stream.append(b"short", headers={"by": "Ann"})
        with stream.read(follow=False) as reader:
            entries: list[Any] = list(reader)
    assert [entry.headers and sorted(entry.headers) for entry in entries] == [None, ["by", "traceparent"]]
    assert [attributes(span)["messaging.message.body.size"] for span in recorded.sent] == [100, 5]


def test_baggage_is_carried_too(recorded: Recorded) -> None:
    from opentelemetry import baggage, context

    telemetry = recorded.telemetry
    with MemoryServer().hub(tracing=telemetry) as hub, hub.subscribe("a") as events:
        token = context.attach(baggage.set_baggage("customer", "4"))
        hub.notify("a", "17")
        context.detach(token)
        event = events.get(PATIENCE)
        with telemetry.processing(event):
            assert baggage.get_baggage("customer") == "4"
        with recorded.tracer.start_as_current_span("main"), telemetry.processing(event):
            assert baggage.get_baggage("customer") == "4"
        assert baggage.get_baggage("customer") is None


def test_without_an_sdk_nothing_is_carried_and_all_goes_on(installed: str, channel: str) -> None:
    telemetry = Telemetry(carry_in_notifications=True)
    with Hub(installed, tracing=telemetry, observe=telemetry.observe) as hub, hub.subscribe(channel) as events:
        telemetry.watch(hub)
        hub.notify(channel, "17")
        event = events.get(PATIENCE)
        hub.stream(channel).append("18")
        handled: list[Any] = []
        hub.stream(channel).process("billing", handled.append, follow=False)
    assert isinstance(event, Notify)
    assert (event.headers, [entry.headers for entry in handled]) == (None, [None])


@pytest.mark.parametrize("face", [Hub, AsyncHub])
def test_what_cannot_trace_is_refused(face: Callable[..., Any], dsn: str) -> None:
    with pytest.raises(TypeError, match=r"tracing is an object such as .*Telemetry\(\), not type: "):
        face(dsn, tracing=Telemetry)


def test_threads_that_wait_for_events_have_their_own_contexts(recorded: Recorded) -> None:
    """One that handles something does not change what another is in the midst of."""
    telemetry = recorded.telemetry
    with MemoryServer().hub(tracing=telemetry) as hub, hub.subscribe("a") as events:
        hub.notify_many([("a", "1"), ("a", "2")])
        both = threading.Barrier(2)
        inside = []

        def handle() -> None:
            with telemetry.processing(events.get(PATIENCE)) as span:
                both.wait(PATIENCE)
                inside.append(trace.get_current_span() is span)
                both.wait(PATIENCE)

        threads = [threading.Thread(target=handle) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        wait_until(lambda: len(recorded.processed) == 2)
    assert inside == [True, True]
