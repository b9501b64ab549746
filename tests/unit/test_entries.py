"""What can be appended to a stream, and what is told to who appends anything else."""

from __future__ import annotations

import json
from collections import UserDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from pgpubsub import PayloadError, PayloadTooLarge
from pgpubsub.core.entries import (
    NAME_LIMIT,
    NewEntry,
    check_schema,
    check_stream,
    hint_channel,
    new_entry,
    with_headers,
)
from pgpubsub.core.position import stream_id

LIMIT = 100


def entry(payload: object = "p", **settings: Any) -> NewEntry:
    return new_entry("orders", payload, LIMIT, **settings)  # type: ignore[arg-type]


def test_an_entry_keeps_text_as_text_and_bytes_as_bytes() -> None:
    assert entry("text", key="k", headers={"a": 1}, idempotency_key="i") == NewEntry(
        stream_id("orders"), "orders", "k", "text", None, '{"a":1}', "i", 12
    )
    assert entry(b"\0\xff") == NewEntry(stream_id("orders"), "orders", None, None, b"\0\xff", None, None, 2)


@pytest.mark.parametrize("payload", [bytearray(b"abc"), memoryview(b"abc"), memoryview(b"xaxbxc")[1::2]])
def test_whatever_holds_bytes_is_copied(payload: bytearray | memoryview) -> None:
    kept = entry(payload)
    assert (kept.text, kept.data) == (None, b"abc")
    assert type(kept.data) is bytes


def test_nothing_is_a_payload_too() -> None:
    assert (entry("").text, entry("").data) == ("", None)
    assert (entry(b"").text, entry(b"").data) == (None, b"")


def test_the_size_of_an_entry_is_in_bytes() -> None:
    sizes = [entry(""), entry("four"), entry(b"three"), entry("four", headers={"a": 1}), entry("é", key="é")]
    assert [one.size for one in sizes] == [0, 4, 5, 11, 4]


@pytest.mark.parametrize("payload", ["x" * LIMIT, "é" * (LIMIT // 2), "😀" * (LIMIT // 4), b"x" * LIMIT])
def test_a_payload_may_be_as_long_as_the_limit(payload: str | bytes) -> None:
    assert entry(payload) is not None


@pytest.mark.parametrize(
    ("payload", "size"),
    [
        ("x" * (LIMIT + 1), LIMIT + 1),
        ("é" * (LIMIT // 2 + 1), LIMIT + 2),
        (b"x" * (LIMIT + 1), LIMIT + 1),
        (memoryview(bytes(4 * LIMIT)).cast("i"), 4 * LIMIT),
    ],
)
def test_a_payload_that_is_longer_is_refused_with_both_numbers(payload: object, size: int) -> None:
    with pytest.raises(PayloadTooLarge, match=f"for stream 'orders' has {size} bytes and max_payload is 100") as caught:
        entry(payload)
    assert (caught.value.size, caught.value.limit) == (size, LIMIT)


@pytest.mark.parametrize("payload", [None, 17, {"a": 1}, ["x"]])
def test_a_payload_of_another_type_is_refused_with_what_to_do(payload: object) -> None:
    with pytest.raises(TypeError, match=f"is a str or bytes, not {type(payload).__name__}; give the stream a type"):
        entry(payload)


@pytest.mark.parametrize("name", ["key", "idempotency_key"])
def test_a_key_is_text(name: str) -> None:
    what = name.replace("_", " ")
    with pytest.raises(TypeError, match=f"the {what} for stream 'orders' is a str, not int: 17"):
        entry(**{name: 17})


@pytest.mark.parametrize(("text", "fault"), [("a\0b", "contains NUL"), ("a\ud800b", "contains a lone surrogate")])
def test_text_that_a_server_cannot_store_is_refused_before_it_gets_there(text: str, fault: str) -> None:
    with pytest.raises(PayloadError, match=f"the payload for stream 'orders' {fault}, which PostgreSQL cannot store"):
        entry(text)
    with pytest.raises(PayloadError, match=f"the key for stream 'orders' {fault}"):
        entry(key=text)
    with pytest.raises(PayloadError, match=f"the idempotency key for stream 'orders' {fault}"):
        entry(idempotency_key=text)
    headers: Mapping[str, Any]
    for headers in ({"a": text}, {text: 1}, {"a": [{"b": text}]}):
        with pytest.raises(PayloadError, match=f"a header for stream 'orders' {fault}"):
            entry(headers=headers)


@pytest.mark.parametrize("text", ["\\u0000", "\\\\u0000", "u0000", "\\", "\\\\", "\n\x01\x7f", '"', "€😀"])
def test_a_header_may_be_any_other_text(text: str) -> None:
    kept = entry(headers={text: [text, text]})
    assert kept.headers is not None
    assert json.loads(kept.headers) == {text: [text, text]}


def test_an_idempotency_key_may_have_as_many_bytes_as_an_index_takes() -> None:
    assert entry(idempotency_key="é" * (NAME_LIMIT // 2)).idempotency_key is not None
    with pytest.raises(PayloadError, match="has 1002 bytes and may have 1000: use a digest of it"):
        entry(idempotency_key="é" * (NAME_LIMIT // 2 + 1))


def test_a_key_and_headers_count_too() -> None:
    assert entry("x" * 50, key="k" * 40, headers={"a": 1}).size == 97
    with pytest.raises(PayloadTooLarge, match="has 50 bytes, beside 51 of key and headers, and max_payload is 100"):
        entry("x" * 50, key="k" * 51)


@pytest.mark.parametrize("headers", [{"a": 1}, UserDict({"a": 1}), MappingProxyType({"a": 1})])
def test_headers_are_any_mapping(headers: Mapping[str, Any]) -> None:
    assert entry(headers=headers).headers == '{"a":1}'


def test_no_headers_are_not_the_same_as_empty_ones() -> None:
    assert (entry().headers, entry(headers={}).headers) == (None, "{}")


def test_other_headers_replace_those_that_there_are() -> None:
    for before in (None, {}, {"long": "é" * 10}):
        other = with_headers(entry("text", key="k", headers=before), {"a": 1}, LIMIT)
        assert other == entry("text", key="k", headers={"a": 1})
    with pytest.raises(PayloadTooLarge, match="has 101 bytes with its headers and max_payload is 100"):
        with_headers(entry("x" * 94), {"a": 1}, LIMIT)


@pytest.mark.parametrize("headers", [[("a", 1)], "a", 17, {1: "a"}, {"a": 1, None: 2}])
def test_headers_of_another_type_are_refused(headers: object) -> None:
    with pytest.raises(TypeError, match="headers for stream 'orders' are a mapping from names to JSON values, not "):
        entry(headers=headers)


def endless() -> dict[str, Any]:
    headers: dict[str, Any] = {}
    headers["a"] = headers
    return headers


@pytest.mark.parametrize(
    "headers", [{"a": object()}, {"a": b"x"}, {"a": float("nan")}, {"a": float("inf")}, {"a": {(): 1}}, endless()]
)
def test_headers_that_are_no_json_are_refused(headers: dict[str, Any]) -> None:
    with pytest.raises(PayloadError, match="the headers for stream 'orders' are no JSON: ") as caught:
        entry(headers=headers)
    assert caught.value.__cause__ is not None


# -- names


@pytest.mark.parametrize("name", ["a", "orders.new/7 €", "x" * NAME_LIMIT, "é" * (NAME_LIMIT // 2)])
def test_a_stream_can_have_any_name_that_is_not_too_long(name: str) -> None:
    check_stream(name)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "is empty"),
        ("x" * (NAME_LIMIT + 1), "has 1001"),
        ("é" * (NAME_LIMIT // 2 + 1), "has 1002"),
        ("a\0", "contains NUL"),
        ("\ud800", "contains a lone surrogate"),
    ],
)
def test_another_name_is_refused(name: str, fault: str) -> None:
    with pytest.raises(ValueError, match=f"the name of a stream is text of 1 to 1000 bytes, and this one {fault}$"):
        check_stream(name)
    with pytest.raises(ValueError, match="the name of a stream"):
        new_entry(name, "p", LIMIT)


@pytest.mark.parametrize("name", [None, 17, b"orders"])
def test_the_name_of_a_stream_or_a_schema_is_text(name: object) -> None:
    with pytest.raises(TypeError, match="the name of a stream is a str, not "):
        check_stream(name)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the name of a schema is a str, not "):
        check_schema(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["pgpubsub", 'My "schema"', "x" * 63, "é" * 31])
def test_a_schema_can_have_any_name_that_is_an_identifier(name: str) -> None:
    check_schema(name)


@pytest.mark.parametrize(
    ("name", "fault"), [("", "is empty"), ("é" * 32, "has 64"), ("a\0", "contains NUL"), ("\ud800", "contains a lone")]
)
def test_another_name_of_a_schema_is_refused(name: str, fault: str) -> None:
    with pytest.raises(ValueError, match=f"the name of a schema is text of 1 to 63 bytes, and this one {fault}"):
        check_schema(name)


def test_hints_go_over_a_channel_with_the_number_of_the_stream() -> None:
    assert [hint_channel(stream) for stream in (0, 255, (1 << 63) - 1, -1, -(1 << 63))] == [
        "pgpubsub.stream.0",
        "pgpubsub.stream.ff",
        "pgpubsub.stream.7fffffffffffffff",
        "pgpubsub.stream.ffffffffffffffff",
        "pgpubsub.stream.8000000000000000",
    ]
