"""What is sent beside a payload: checked, written, framed with it, and found again on the other side."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpubsub import Channel, Notify, PayloadError, PayloadTooLarge, Undecodable
from pgpubsub.core.buffer import Buffer, payload_bytes
from pgpubsub.core.frames import MAX_PAYLOAD, Message, Unjoined, join, pack
from pgpubsub.core.headers import HEADERS_LIMIT, Headed, as_json, parted, read_json, with_headers
from pgpubsub.core.sql import PAYLOAD_LIMIT
from pgpubsub.hubs.mailbox import now

NAME = "0123456789abcdef"


def received(message: Message, limit: int = MAX_PAYLOAD) -> Notify | Unjoined:
    """What comes of it on the other side."""
    frames = pack([message], lambda: NAME)
    assert all(len(text.encode()) <= PAYLOAD_LIMIT for _, text in frames)
    runs, partial = join(None, [Notify(7, *frame) for frame in frames], limit)
    assert partial is None
    [run] = runs
    if isinstance(run, Unjoined):
        return run
    [event] = run
    return event


def headed(payload: str = "17", headers: dict[str, Any] | None = None) -> Notify:
    event = received(with_headers(("a", payload), headers or {"by": "Ann"}, MAX_PAYLOAD))
    assert isinstance(event, Notify)
    return event


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@given(texts, st.dictionaries(texts, values, max_size=4), st.integers(0, 3))
def test_whatever_is_sent_beside_a_payload_arrives_beside_it(payload: str, headers: dict[str, Any], times: int) -> None:
    payload += "é" * 4000 * times
    event = received(with_headers(("a", payload), headers, MAX_PAYLOAD))
    assert event == (7, "a", payload)
    assert type(event) is Notify or headers
    assert getattr(event, "headers", "it is no notification") == (headers or None)


def test_one_with_headers_is_the_tuple_that_it_would_be_without() -> None:
    event = headed()
    assert event.headers == {"by": "Ann"}
    assert repr(event) == "Notify(7, 'a', '17')"
    assert hash(event) == hash((7, "a", "17"))
    assert event == (7, "a", "17") == tuple(event)
    assert Notify(7, "a", "17").headers is None


def test_headers_survive_copies() -> None:
    event = headed()
    assert event._replace(payload="18") == (7, "a", "18")
    assert event._replace(payload="18").headers == {"by": "Ann"}
    copy = pickle.loads(pickle.dumps(event))
    assert (copy, copy.headers, type(copy)) == (event, {"by": "Ann"}, type(event))


def test_headers_survive_decoding() -> None:
    numbers = Channel("a", int)
    event = numbers.decode(headed("17"))
    assert isinstance(event, Notify)
    assert (event.payload, event.headers) == (17, {"by": "Ann"})
    undecodable = numbers.decode(headed("seventeen"))
    assert isinstance(undecodable, Undecodable)
    assert undecodable.event.headers == {"by": "Ann"}


def test_a_typed_payload_can_have_headers() -> None:
    from pgpubsub.channel import checked_message

    event = received(checked_message(Channel("a", int), 17, MAX_PAYLOAD, {"by": "Ann"}))
    assert event == (7, "a", "17")


def test_a_text_that_looks_like_one_with_headers_is_a_text() -> None:
    _, text = with_headers(("a", "17"), {"by": "Ann"}, MAX_PAYLOAD)
    for plain in (str(text), text.whole if isinstance(text, Headed) else ""):
        event = received(("a", plain))
        assert event == (7, "a", plain)
        assert isinstance(event, Notify)
        assert event.headers is None


def test_equal_ones_in_one_statement_all_arrive() -> None:
    names = iter("123")
    message = with_headers(("a", "17"), {"by": "Ann"}, MAX_PAYLOAD)
    frames = pack([message, message, ("a", "17")], lambda: next(names) * 16)
    assert len(set(frames)) == 3
    assert frames[2] == ("a", "17")


def test_other_headers_replace_those_that_there_are() -> None:
    message = with_headers(with_headers(("a", "17"), {"by": "Ann"}, MAX_PAYLOAD), {"by": "Bob"}, MAX_PAYLOAD)
    event = received(message)
    assert isinstance(event, Notify)
    assert event.headers == {"by": "Bob"}
    assert with_headers(message, {}, MAX_PAYLOAD) == ("a", "17")
    assert type(with_headers(message, {}, MAX_PAYLOAD)[1]) is str


# -- what is too long


def test_headers_may_have_16_kibibytes() -> None:
    longest = {"a": "x" * (HEADERS_LIMIT - len('{"a":""}'))}
    assert headed(headers=longest).headers == longest
    with pytest.raises(PayloadTooLarge, match="have 16385 bytes and may have 16384: put what is long into the payload"):
        with_headers(("a", ""), {"a": longest["a"] + "x"}, MAX_PAYLOAD)
    with pytest.raises(PayloadTooLarge):
        with_headers(("a", ""), {"a": "é" * (HEADERS_LIMIT // 2)}, MAX_PAYLOAD)


def test_who_sends_longer_ones_is_not_obeyed() -> None:
    for text in ("x" * HEADERS_LIMIT, "é" * (HEADERS_LIMIT // 2)):
        event = received(("a", Headed(as_json("", {"a": text}), "17")))
        assert isinstance(event, Unjoined)
        assert event.why.endswith("there is no line feed behind at most 16384 bytes")


def test_headers_count_for_the_longest_payload() -> None:
    exactly = len('{"a":1}\n') + 2 * 500
    message = with_headers(("a", "é" * 500), {"a": 1}, exactly)
    with pytest.raises(PayloadTooLarge, match=f"has {exactly} bytes with its headers and max_payload is {exactly - 1}"):
        with_headers(("a", "é" * 500), {"a": 1}, exactly - 1)
    assert isinstance(received(message, exactly), Notify)
    assert isinstance(received(message, exactly - 1), Unjoined)


def test_headers_count_for_a_buffers_bytes() -> None:
    event = headed("é")
    size = len('{"by":"Ann"}') + 2
    assert payload_bytes([event, Notify(7, "a", "é")]) == size + 2
    buffer = Buffer(10, 2 * size, "drop_oldest", now)
    for _ in range(3):
        buffer.put([event], size)
    assert (len(buffer), buffer.bytes, buffer.dropped) == (3, 2 * size, 1)
    buffer.take()  # the gap
    assert buffer.take() == event
    assert buffer.bytes == size
    buffer.restore(event)
    assert buffer.bytes == 2 * size


# -- what is wrong


@pytest.mark.parametrize("headers", [[("a", 1)], "a", {1: "a"}])
def test_headers_are_a_mapping_from_names(headers: Any) -> None:
    with pytest.raises(TypeError, match="the headers for channel 'a' are a mapping from names to JSON values, not "):
        with_headers(("a", ""), headers, MAX_PAYLOAD)


@pytest.mark.parametrize("headers", [{"a": float("nan")}, {"a": b""}, {"a": "\ud800"}, {"\0": 1}])
def test_headers_are_json_that_postgresql_can_store(headers: Any) -> None:
    with pytest.raises(PayloadError, match="for channel 'a'"):
        with_headers(("a", ""), headers, MAX_PAYLOAD)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[1]", "they are no JSON object"),
        ("null", "they are no JSON object"),
        ('{"a":NaN}', "NaN is no JSON"),
        ('{"a":-Infinity}', "-Infinity is no JSON"),
        ('{"a":' * 50_000, "they are nested too deeply"),
        ('{"a":' + "1" * 5000 + "}", "limit"),
        ('{"a":1e999}', "a number in them is too large"),
        ('{"a":[-1e999]}', "a number in them is too large"),
        ('{"a":1', "Expecting"),
        ('{"a":1} x', "Extra data"),
    ],
)
def test_what_is_no_json_object_is_told_as_a_loss(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_json(text)
    assert isinstance(received(("a", Headed(text, "17"))), Unjoined)


def test_numbers_are_read_as_far_as_they_are_finite() -> None:
    assert read_json('{"a":[1.5,-1e308,1e-999]}') == {"a": [1.5, -1e308, 0.0]}
    event = received(("a", Headed('{"a":1e999}', "17")))
    assert isinstance(event, Unjoined)
    assert event.why.endswith("a number in them is too large")


@given(st.text())
def test_whatever_comes_as_a_whole_is_read_or_is_a_value_error(whole: str) -> None:
    try:
        headers, size, payload = parted(whole)
    except ValueError:
        return
    assert json.loads(whole[: len(whole) - len(payload) - 1]) == headers
    assert size <= HEADERS_LIMIT
