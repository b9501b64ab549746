"""Names, payloads and statements."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgpubsub import ChannelNameError, PayloadError, PayloadTooLarge
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


@pytest.mark.parametrize("payload", ["", "x" * 9999, "é" * 4999 + "x", "日" * 3333, "🐘" * 2499, "any ' \" ; text"])
def test_a_payload_of_as_many_bytes_as_the_limit_can_be_sent(payload: str) -> None:
    sql.check_payload("c", payload, 9999)


@pytest.mark.parametrize(
    ("payload", "size"), [("x" * 10_000, 10_000), ("é" * 5000, 10_000), ("日" * 3334, 10_002), ("🐘" * 2500, 10_000)]
)
def test_a_longer_payload_is_an_error_with_its_size_and_the_limit(payload: str, size: int) -> None:
    with pytest.raises(PayloadTooLarge, match=f"'c' has {size} bytes and max_payload is 9999") as caught:
        sql.check_payload("c", payload, 9999)
    assert (caught.value.size, caught.value.limit) == (size, 9999)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), st.integers(1, 40))
def test_a_payload_is_accepted_exactly_when_it_has_at_most_as_many_bytes(payload: str, limit: int) -> None:
    fits = len(payload.encode()) <= limit
    try:
        sql.check_payload("c", payload, limit)
    except PayloadTooLarge:
        assert not fits
    else:
        assert fits


@pytest.mark.parametrize("payload", ["a\0b", "\udc80", "x" * 100 + "\udc80"])
def test_a_payload_that_is_not_storable_text_is_an_error_of_another_kind(payload: str) -> None:
    with pytest.raises(PayloadError, match="the payload for channel 'c' contains .*cannot store") as caught:
        sql.check_payload("c", payload, 50)
    assert not isinstance(caught.value, PayloadTooLarge)


@pytest.mark.parametrize("thing", [b"bytes", 5, None, {"a": 1}])
def test_a_payload_that_is_not_text_is_a_type_error_that_names_what_encodes_it(thing: object) -> None:
    with pytest.raises(TypeError, match=rf"is a str, not {type(thing).__name__}; .*pgpubsub\.Channel\('c', type\)"):
        sql.check_payload("c", thing, 7999)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [1, 7999, 1 << 28])
def test_max_payload_is_a_number_of_bytes(limit: int) -> None:
    sql.check_max_payload(limit)


@pytest.mark.parametrize("limit", [0, -1, (1 << 28) + 1])
def test_max_payload_of_nothing_or_more_than_a_statement_carries_is_an_error(limit: int) -> None:
    with pytest.raises(ValueError, match=f"max_payload is a number of bytes from 1 to 268435456, not {limit}"):
        sql.check_max_payload(limit)


@pytest.mark.parametrize("limit", [True, 1.5, "16MB", None])
def test_max_payload_that_is_no_number_is_a_type_error(limit: object) -> None:
    with pytest.raises(TypeError, match=f"max_payload is a number of bytes, not {limit!r}"):
        sql.check_max_payload(limit)  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "length"), [("", 0), ("abc", 3), ("é日🐘", 9), ("\udc80a", 2)])
def test_bytes_are_counted_also_of_what_was_not_text(text: str, length: int) -> None:
    assert sql.utf8_length(text) == length


@pytest.mark.parametrize("encoding", ["EUC_JP", "EUC_TW", "EUC_JIS_2004", "MULE_INTERNAL"])
def test_where_a_character_may_be_twice_as_long_there_is_half_the_room(encoding: str) -> None:
    assert sql.room(encoding) == 3999


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "SQL_ASCII", "WIN1252", None])
def test_elsewhere_there_is_all_of_it(encoding: str | None) -> None:
    assert sql.room(encoding) == 7999


TEXTS = st.text(st.sampled_from("a\1\2123\n") | st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(st.lists(st.tuples(TEXTS.filter(bool), TEXTS), min_size=2))
@example([("a", "\1"), ("b", "\0011\2"), ("c", "\0012\2")])
def test_what_is_joined_is_separated_by_what_occurs_nowhere_else(messages: list[tuple[str, str]]) -> None:
    channels, payloads, separator = sql.columns(messages)
    assert list(zip(channels.split(separator), payloads.split(separator), strict=True)) == messages


def test_many_texts_that_contain_separators_take_no_longer() -> None:
    messages = [("a", "".join(f"\1{number}\2" for number in range(5000))), ("b", "x" * 10**6)]
    assert sql.columns(messages)[2] == "\0015000\2"


def test_statements_quote_their_channel() -> None:
    assert sql.script([sql.unlisten('a"'), sql.listen("B c")]) == 'UNLISTEN "a"""; LISTEN "B c"'


def test_names_that_may_be_too_long_at_the_server_are_looked_at() -> None:
    assert sql.refuse_truncation(["x" * 63, "é" * 15]) == []
    (statement,) = sql.refuse_truncation(["é" * 16, "a", "it's " + "é" * 20])
    assert statement == (
        f"SELECT pg_catalog.pg_notify(name, '') FROM pg_catalog.unnest(ARRAY['{'é' * 16}', 'it''s {'é' * 20}']) AS name"
        " WHERE pg_catalog.octet_length(name) > 63"
    )


@pytest.mark.parametrize(
    ("text", "quoted"), [("plain", "'plain'"), ("it's", "'it''s'"), ("a\\b", " E'a\\\\b'"), ("\\'", " E'\\\\'''")]
)
def test_a_literal_is_quoted_whatever_the_server_makes_of_backslashes(text: str, quoted: str) -> None:
    assert sql.quote_literal(text) == quoted


def test_bytes_are_appended_as_hexadecimal_text() -> None:
    call = sql.append('a "schema"', "$1", "$2", "$3", "$4", "$5", in_hex=True)
    assert call.startswith('SELECT "a ""schema""".append_bytes(CAST($1 AS text), pg_catalog.decode(CAST($2 AS text), ')
