"""What everything that receives has in common, whether it is a `PubSub`, a `Hub` or an `AsyncHub`."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgpubsub import ChannelNameError, Gap, GapReason, Notify, PayloadError, PayloadTooLarge
from pgpubsub.core.frames import MAX_PAYLOAD
from tests.contract.faces import (
    RECEIVING_KINDS,
    Classic,
    Events,
    Worker,
    closed_error,
    listening_pid,
    payloads,
    take,
    texts,
    together,
)
from tests.contract.test_handler import eventually
from tests.contract.test_pubsub import ODD_NAMES, terminate


@pytest.fixture(params=RECEIVING_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def face(kind: str, dsn: str, new_hub_of: Callable[..., Any]) -> Iterator[Any]:
    """Has `subscribe` and `notify`."""
    if kind != "PubSub":
        with new_hub_of(kind) as hub:
            yield hub
        return
    classic = Classic(dsn)
    yield classic
    classic.close()


def test_what_is_sent_from_then_on_is_delivered_in_order(face: Any, channel: str) -> None:
    face.notify(channel, "too early")
    with face.subscribe(channel) as events:
        for number in range(50):
            face.notify(channel, str(number))
        received = take(events, 50)
    assert payloads(received) == [str(number) for number in range(50)]
    assert {event[1] for event in received if isinstance(event, Notify)} == {channel}


def test_the_sender_is_known_by_its_pid(face: Any, admin: psycopg.Connection[Any], channel: str) -> None:
    with face.subscribe(channel) as events:
        admin.execute("SELECT pg_notify(%s, 'x')", [channel])
        assert events.get(10) == Notify(admin.info.backend_pid, channel, "x")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=15),
    payload=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=500),
)
def test_any_text_arrives_as_it_was(face: Any, admin: psycopg.Connection[Any], name: str, payload: str) -> None:
    with face.subscribe(name) as events:
        face.notify(name, payload)
        admin.execute("SELECT pg_notify(%s, %s)", [name, payload])
        assert texts(take(events, 2)) == [(name, payload)] * 2


def test_any_name_is_a_channel_and_no_other_is_the_same(face: Any, admin: psycopg.Connection[Any]) -> None:
    with face.subscribe(*ODD_NAMES) as events:
        assert events.channels == set(ODD_NAMES)
        for name in ODD_NAMES:
            other = name.swapcase() + " "[: 63 - len(name.encode())]
            if other not in ODD_NAMES:
                admin.execute("SELECT pg_notify(%s, 'not for us')", [other])
            face.notify(name, name)
        assert texts(take(events, len(ODD_NAMES))) == [(name, name) for name in ODD_NAMES]
        assert events.get_nowait() is None


def test_names_differ_in_case(face: Any, channel: str) -> None:
    with face.subscribe(channel.upper()) as upper, face.subscribe(channel.lower()) as lower:
        for name in (channel.upper(), channel.lower(), channel):
            face.notify(name, name)
        face.notify(channel.upper(), "last")
        face.notify(channel.lower(), "last")
        assert payloads(take(upper, 2)) == [channel.upper(), "last"]
        assert payloads(take(lower, 2)) == [channel.lower(), "last"]


@pytest.mark.parametrize(
    "payload",
    [
        *("", "x" * 7999, "é" * 3999, "\U0001f418" * 1999, "'\"\\%s$1\t\r\n"),
        *("x" * 8000, "é" * 4000, "\U0001f418" * 2000, "'\"\\%s$1\t\r\n" * 5000),  # these travel in parts
    ],
)
def test_payloads_of_any_length_arrive(face: Any, channel: str, payload: str) -> None:
    with face.subscribe(channel) as events:
        face.notify(channel, payload)
        assert payloads(take(events, 1)) == [payload]


def test_a_payload_is_optional(face: Any, admin: psycopg.Connection[Any], channel: str) -> None:
    with face.subscribe(channel) as events:
        face.notify(channel)
        admin.execute(f'NOTIFY "{channel}"')
        assert payloads(take(events, 2)) == ["", ""]


def test_several_channels_come_in_one_order(face: Any, new_channel: Callable[[], str]) -> None:
    names = [new_channel() for _ in range(5)]
    with face.subscribe(*names) as events:
        sent = [names[number * 7 % 5] for number in range(30)]
        for number, name in enumerate(sent):
            face.notify(name, str(number))
        assert texts(take(events, 30)) == [(name, str(number)) for number, name in enumerate(sent)]


def test_only_what_was_subscribed_to_comes(face: Any, new_channel: Callable[[], str]) -> None:
    wanted, unwanted = new_channel(), new_channel()
    with face.subscribe(wanted) as events, face.subscribe(unwanted) as others:
        for number in range(3):
            face.notify(unwanted, "unwanted")
            face.notify(wanted, str(number))
        assert payloads(take(events, 3)) == ["0", "1", "2"]
        assert payloads(take(others, 3)) == ["unwanted"] * 3
        assert events.get_nowait() is None


def test_notifications_of_a_transaction_come_when_it_commits(
    face: Any, dsn: str, new_channel: Callable[[], str]
) -> None:
    channel = new_channel()
    with face.subscribe(channel) as events, psycopg.connect(dsn) as sender:
        sender.execute("SELECT pg_notify(%s, i::text) FROM generate_series(1, 3) i", [channel])
        face.notify(channel, "sent later, committed earlier")
        assert payloads(take(events, 1)) == ["sent later, committed earlier"]
        assert events.get_nowait() is None
        sender.commit()
        assert payloads(take(events, 3)) == ["1", "2", "3"]
        sender.execute("SELECT pg_notify(%s, 'rolled back')", [channel])
        sender.rollback()
        sender.execute("SELECT pg_notify(%s, 'the next')", [channel])
        sender.commit()
        assert payloads(take(events, 1)) == ["the next"]


def test_a_burst_arrives_whole_and_in_order(face: Any, admin: psycopg.Connection[Any], channel: str) -> None:
    with face.subscribe(channel) as events:
        admin.execute("SELECT pg_notify(%s, lpad(i::text, 1000, '.')) FROM generate_series(1, 900) i", [channel])
        assert [int(text.strip(".")) for text in payloads(take(events, 900))] == list(range(1, 901))


def test_every_subscriber_gets_everything(face: Any, channel: str) -> None:
    with face.subscribe(channel) as one, face.subscribe(channel) as other:
        for number in range(20):
            face.notify(channel, str(number))
        received = together([partial(take, one, 20), partial(take, other, 20)])
        assert [payloads(events) for events in received] == [[str(number) for number in range(20)]] * 2


def test_nothing_comes_of_a_channel_that_was_left(face: Any, new_channel: Callable[[], str]) -> None:
    left, kept = new_channel(), new_channel()
    with face.subscribe(left, kept) as events:
        face.notify(left, "1")
        assert payloads(take(events, 1)) == ["1"]
        face.notify(left, "arrived, but not taken")
        face.notify(kept, "2")
        events.remove(left)
        assert events.channels == {kept}
        face.notify(left, "not for us")
        face.notify(kept, "3")
        assert payloads(take(events, 2)) == ["2", "3"]
        events.add(left)
        face.notify(left, "4")
        assert payloads(take(events, 1)) == ["4"]


def test_subscribing_to_what_one_has_changes_nothing(face: Any, channel: str) -> None:
    with face.subscribe(channel, channel) as events:
        events.add(channel)
        face.notify(channel, "once")
        face.notify(channel, "again")
        assert payloads(take(events, 2)) == ["once", "again"]
        events.remove(channel)
        assert events.channels == frozenset()
        events.remove(channel)


@pytest.mark.parametrize("name", ["", "x" * 64, "é" * 32, "nul\0", "\ud800"])
def test_an_impossible_name_is_refused_everywhere(face: Any, channel: str, name: str) -> None:
    with face.subscribe(channel) as events:
        for call in (face.notify, events.add, events.remove):
            with pytest.raises(ChannelNameError):
                call(name)
        with pytest.raises(ChannelNameError):
            face.subscribe(channel, name).__enter__()
        assert events.channels == {channel}


@pytest.mark.parametrize(
    ("payload", "error", "words"),
    [
        ("x" * (MAX_PAYLOAD + 1), PayloadTooLarge, "16777217 bytes and max_payload is 16777216"),
        ("é" * (MAX_PAYLOAD // 2 + 1), PayloadTooLarge, "16777218 bytes"),
        ("a\0b", PayloadError, "NUL"),
        ("\ud800", PayloadError, "surrogate"),
        (None, TypeError, "is a str"),
        (b"bytes", TypeError, "is a str"),
    ],
)
def test_an_impossible_payload_is_refused_and_nothing_is_sent(
    face: Any, channel: str, payload: Any, error: type[Exception], words: str
) -> None:
    with face.subscribe(channel) as events:
        with pytest.raises(error, match=words):
            face.notify(channel, payload)
        face.notify(channel, "only this")
        assert payloads(take(events, 1)) == ["only this"]


def test_a_lost_connection_is_a_gap_and_then_everything_comes(
    face: Any, kind: str, admin: psycopg.Connection[Any], new_channel: Callable[[], str]
) -> None:
    one, other = new_channel(), new_channel()
    with face.subscribe(one, other) as events:
        face.notify(one, "before")
        assert payloads(take(events, 1)) == ["before"]
        for round_ in range(3):
            terminate_listener(events, kind, admin)
            gap = events.get(15)
            assert isinstance(gap, Gap)
            assert gap.reason is GapReason.CONNECTION_LOST
            assert gap.channels == tuple(sorted([one, other]))
            assert gap.count is None
            assert "terminating connection due to administrator command" in gap.detail
            for name in (one, other):
                admin.execute("SELECT pg_notify(%s, %s)", [name, f"after gap {round_}"])
            assert payloads(take(events, 2)) == [f"after gap {round_}"] * 2
            assert events.get_nowait() is None


def test_what_had_arrived_before_the_loss_comes_before_the_gap(
    face: Any, kind: str, admin: psycopg.Connection[Any], channel: str
) -> None:
    with face.subscribe(channel) as events:
        admin.execute("SELECT pg_notify(%s, i::text) FROM generate_series(1, 2) i", [channel])
        if kind == "PubSub":
            assert select.select([events.pubsub], [], [], 10)[0]
        else:
            eventually(lambda: events.stats().depth == 2)
        terminate_listener(events, kind, admin)
        assert payloads(take(events, 2)) == ["1", "2"]
        assert isinstance(events.get(15), Gap)


def terminate_listener(events: Events, kind: str, admin: psycopg.Connection[Any]) -> None:
    terminate(admin, events.pubsub.backend_pid if kind == "PubSub" else listening_pid(admin))  # type: ignore[attr-defined]


def test_a_wait_ends_in_time_and_costs_nothing(face: Any, channel: str) -> None:
    with face.subscribe(channel) as events:
        for timeout in (0.05, 0):
            with pytest.raises(TimeoutError):
                events.get(timeout)
        assert events.get_nowait() is None
        face.notify(channel, "1")
        face.notify(channel, "2")
        assert payloads(take(events, 1)) == ["1"]
        assert payloads([events.get(0.05)]) == ["2"]


def test_what_is_there_is_had_without_waiting(face: Any, channel: str) -> None:
    with face.subscribe(channel) as events:
        face.notify(channel, "1")
        face.notify(channel, "2")
        received: list[Notify | Gap] = []
        eventually(lambda: collect(events, received) == 2)
        assert payloads(received) == ["1", "2"]
        assert events.get_nowait() is None


def collect(events: Events, received: list[Notify | Gap]) -> int:
    event = events.get_nowait()
    if event is not None:
        received.append(event)
    return len(received)


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_an_impossible_timeout_is_an_error_at_once(face: Any, channel: str, timeout: float) -> None:
    with face.subscribe(channel) as events, pytest.raises(ValueError, match="a timeout cannot be"):
        events.get(timeout)


def test_a_timeout_that_is_no_number_is_a_type_error(face: Any, channel: str) -> None:
    with face.subscribe(channel) as events, pytest.raises(TypeError, match="a timeout is a number of seconds or None"):
        events.get("5")


def test_a_wait_without_end_ends_when_something_comes(face: Any, channel: str) -> None:
    with face.subscribe(channel) as events:
        waiting = Worker(lambda: events.get())
        face.notify(channel, "x")
        assert payloads([waiting.outcome()]) == ["x"]


def test_it_is_iterated_and_left_and_iterated_again(face: Any, channel: str) -> None:
    with face.subscribe(channel) as events:
        for number in range(6):
            face.notify(channel, str(number))
        for event in events:
            assert payloads([event]) == ["0"]
            break
        assert payloads([events.get(10)]) == ["1"]
        rest = []
        for event in events:
            rest.append(event)
            if len(rest) == 4:
                break
        assert payloads(rest) == ["2", "3", "4", "5"]


def test_closing_ends_the_iteration_and_the_waiting(face: Any, kind: str, channel: str) -> None:
    with face.subscribe(channel) as events, face.subscribe(channel) as others:
        face.notify(channel, "1")
        begun: list[Notify | Gap] = []

        def iterate() -> list[Notify | Gap]:
            begun.extend(event for event, _ in zip(events, range(1), strict=False))
            return list(events)

        iterating, waiting = Worker(iterate), Worker(lambda: take(others, 2))
        eventually(lambda: begun)
        events.close()
        others.close()
        assert iterating.outcome() == []
        assert isinstance(waiting.outcome(), closed_error(kind))
        for call in (events.get, lambda: events.get(1), events.get_nowait, lambda: others.get(0)):
            with pytest.raises(closed_error(kind)):
                call()
        assert list(events) == []
        events.close()


def test_what_is_buffered_is_gone_with_the_subscription(face: Any, kind: str, channel: str) -> None:
    with face.subscribe(channel) as events:
        face.notify(channel, "1")
        face.notify(channel, "2")
        assert payloads(take(events, 1)) == ["1"]
    assert list(events) == []
    with pytest.raises(closed_error(kind)):
        events.get(1)
