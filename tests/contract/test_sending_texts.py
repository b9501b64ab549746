"""Every text arrives as it was sent, whoever sends and whoever receives, on its own or among many."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pgpubsub
from pgpubsub import PayloadTooLarge, PubSub
from pgpubsub.core.frames import CHUNK, MAX_PAYLOAD
from tests.contract.faces import AnyHub, payloads, take, texts
from tests.contract.sending import Foreign

ANY = st.characters(exclude_categories=["Cs"], exclude_characters="\0")

NAMES = st.text(ANY, min_size=1, max_size=63).filter(lambda name: len(name.encode()) <= 63)

CHARACTERS = ["x", "é", "€", "\U0001f418", "\\", '"', "'"]
"""Of one to four bytes, and those that have to be escaped."""


@st.composite
def long_texts(draw: st.DrawFn) -> str:
    """About as many bytes as fit into a notification, or into a few."""
    size = draw(st.sampled_from([3968, 7936, 7998, 7999, 8000, 8001, 2 * CHUNK, 3 * CHUNK + 1]))
    first, second = draw(st.sampled_from(CHARACTERS)), draw(st.sampled_from(CHARACTERS))
    begin = first * draw(st.integers(0, 3)) + "x" * draw(st.integers(0, 3))
    count, rest = divmod(size - len(begin.encode()), len(second.encode()))
    return begin + second * count + "x" * rest


FRAMES = st.builds(
    "pgpubsub/{} {} {}/{} {}".format,
    st.sampled_from(["1", "2", "10000", ""]),
    st.sampled_from(["0123456789abcdef", "0123456789abcde", "0123456789ABCDEF"]),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from(["", "text", "pgpubsub/1 0123456789abcdef 1/1 x", "x" * 8000]),
) | st.sampled_from(["pgpubsub/", "pgpubsub", "pgpubsub/1", "PGPUBSUB/1 0123456789abcdef 1/1 x", "pgpubsub/" * 1000])

TEXTS = st.text(ANY, max_size=300) | long_texts() | FRAMES

EXAMPLES = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def pubsub(dsn: str) -> Iterator[PubSub]:
    with pgpubsub.connect(dsn) as pubsub:
        yield pubsub


@EXAMPLES
@given(name=NAMES, some=st.lists(TEXTS, min_size=1, max_size=4))
def test_from_hub_to_hub(hub: AnyHub, name: str, some: list[str]) -> None:
    with hub.subscribe(name) as events:
        for text in some:
            hub.notify(name, text)
        hub.notify_many([(name, text) for text in some * 2])
        hub.notify_stream([(name, text) for text in some * 2])
        assert texts(take(events, 5 * len(some))) == [(name, text) for text in some * 5]


@EXAMPLES
@given(name=NAMES, some=st.lists(TEXTS, min_size=1, max_size=4))
def test_from_hub_to_pubsub(hub: AnyHub, pubsub: PubSub, name: str, some: list[str]) -> None:
    pubsub.listen(name)
    for text in some:
        hub.notify(name, text)
    hub.notify_many([(name, text) for text in some * 2])
    received: list[tuple[str, str]] = []
    while len(received) < 3 * len(some):
        events = pubsub.get_events(20)
        assert events
        received += [event[1:] for event in events]
    assert received == [(name, text) for text in some * 3]
    pubsub.unlisten(name)


@EXAMPLES
@given(name=NAMES, some=st.lists(TEXTS, min_size=1, max_size=4))
def test_from_pubsub_to_hub(hub: AnyHub, pubsub: PubSub, name: str, some: list[str]) -> None:
    with hub.subscribe(name) as events:
        for text in some * 2:
            pubsub.notify(name, text)
        assert texts(take(events, 2 * len(some))) == [(name, text) for text in some * 2]


@pytest.mark.parametrize("size", [7998, 7999, 8000, 8001])
@pytest.mark.parametrize("character", ["x", "é", "€", "\U0001f418"])
def test_up_to_7999_bytes_are_plain_text_for_everybody(
    hub: AnyHub, dsn: str, channel: str, character: str, size: int
) -> None:
    count, rest = divmod(size, len(character.encode()))
    text = character * count + "x" * rest
    with Foreign(dsn, channel) as foreign, hub.subscribe(channel) as events:
        hub.notify(channel, text)
        assert payloads(take(events, 1)) == [text]
        foreign.look()
        assert (foreign.payloads == [text]) is (size <= 7999)
        assert foreign.joined == [(channel, text)]


def test_the_longest_payload_arrives_and_one_byte_more_is_refused(hub: AnyHub, dsn: str, channel: str) -> None:
    """With it goes what it stands among."""
    with Foreign(dsn, channel) as foreign, hub.subscribe(channel) as events:
        for text in ("x" * (1 << 20), "é" * (MAX_PAYLOAD // 2), "x" * MAX_PAYLOAD):
            hub.notify(channel, text)
            assert payloads(take(events, 1)) == [text]
        sent = hub.stats().sent
        too_long = "é" * (MAX_PAYLOAD // 2) + "x"
        calls: list[Callable[[], object]] = [
            lambda: hub.notify(channel, too_long),
            lambda: hub.notify_many([(channel, "before"), (channel, too_long)]),
            lambda: hub.notify_stream([(channel, too_long)]),
        ]
        for call in calls:
            with pytest.raises(PayloadTooLarge, match="16777217 bytes and max_payload is 16777216") as caught:
                call()
            assert (caught.value.size, caught.value.limit) == (MAX_PAYLOAD + 1, MAX_PAYLOAD)
        hub.notify(channel, "end")
        foreign.until("end")
        assert [len(payload) for _, payload in foreign.joined] == [1 << 20, MAX_PAYLOAD // 2, MAX_PAYLOAD, 3]
        assert hub.stats().sent == sent + 1


def test_more_than_a_transaction_carries_is_refused_before_anything_is_sent(
    hub: AnyHub, dsn: str, channel: str
) -> None:
    text = "x" * MAX_PAYLOAD
    with Foreign(dsn, channel) as foreign:
        with pytest.raises(PayloadTooLarge, match=r"one transaction carries at most 268435456: use notify_stream\(\)"):
            hub.notify_many([*[(channel, text)] * 16, (channel, "x")])
        hub.notify(channel, "end")
        assert foreign.until("end") == ["end"]
