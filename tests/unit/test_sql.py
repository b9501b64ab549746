"""Names, payloads and statements."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpubsub import ChannelNameError, PayloadError
from pgpubsub.core import sql

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "Upper Case",
        'quo"ted',
        "it's",
        "a;b",
        "a--b",
        "%s",
        "日本語",
        "é" * 31,
        "x" * 63,
        "\n\t ",
        "*",
        "\U0001f418",
    ],
)
def test_any_text_of_up_to_63_bytes_is_a_channel_name(name: str) -> None:
    sql.check_channel(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "cannot be empty"),
        ("x" * 64, "64 bytes and PostgreSQL's limit is 63"),
        ("é" * 32, "64 bytes"),
        ("a\0b", "contains NUL"),
        ("a\ud800", "lone surrogate"),
    ],
)
def test_a_name_that_postgresql_would_truncate_or_refuse_is_an_error(name: str, reason: str) -> None:
    with pytest.raises(ChannelNameError, match=reason):
        sql.check_channel(name)


@pytest.mark.parametrize("thing", [b"bytes", 5, None])
def test_a_name_that_is_not_text_is_a_type_error(thing: object) -> None:
    with pytest.raises(TypeError, match="a channel name is a str"):
        sql.check_channel(thing)  # type: ignore[arg-type]


@given(NAMES)
def test_a_name_is_accepted_exactly_when_it_has_at_most_63_bytes(name: str) -> None:
    fits = len(name.encode()) <= 63
    try:
        sql.check_channel(name)
    except ChannelNameError:
        assert not fits
    else:
        assert fits


@given(NAMES)
def test_a_quoted_identifier_reads_back_as_the_name(name: str) -> None:
    quoted = sql.quote_identifier(name)
    assert quoted.startswith('"')
    assert quoted.endswith('"')
    assert '"' not in quoted[1:-1].replace('""', "")
    assert quoted[1:-1].replace('""', '"') == name


@pytest.mark.parametrize("payload", ["", "x" * 7999, "é" * 3999, "日" * 2666, "any ' \" ; text"])
def test_a_payload_of_up_to_7999_bytes_fits(payload: str) -> None:
    sql.check_payload("c", payload)


@pytest.mark.parametrize(("payload", "size"), [("x" * 8000, 8000), ("é" * 4000, 8000), ("日" * 2667, 8001)])
def test_a_longer_payload_is_an_error_with_its_size_and_the_limit(payload: str, size: int) -> None:
    with pytest.raises(PayloadError, match=f"'c' has {size} bytes and PostgreSQL's limit is 7999") as caught:
        sql.check_payload("c", payload)
    assert (caught.value.size, caught.value.limit) == (size, 7999)


@pytest.mark.parametrize("payload", ["a\0b", "\udc80"])
def test_a_payload_that_is_not_storable_text_is_an_error(payload: str) -> None:
    with pytest.raises(PayloadError, match="cannot store") as caught:
        sql.check_payload("c", payload)
    assert (caught.value.size, caught.value.limit) == (None, None)


@pytest.mark.parametrize("thing", [b"bytes", 5, None, {"a": 1}])
def test_a_payload_that_is_not_text_is_a_type_error(thing: object) -> None:
    with pytest.raises(TypeError, match=r"is a str, not .*json\.dumps"):
        sql.check_payload("c", thing)  # type: ignore[arg-type]


def test_statements_quote_their_channel() -> None:
    assert sql.script([sql.unlisten('a"'), sql.listen("B c")]) == 'UNLISTEN "a"""; LISTEN "B c"'
