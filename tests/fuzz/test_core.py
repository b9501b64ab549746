"""What the core is sent: notifications that look like frames, positions, entries."""

from __future__ import annotations

import zlib
from contextlib import suppress
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from pgpubsub import Notify
from pgpubsub.core.entries import new_entry
from pgpubsub.core.frames import CHUNK, Partial, Unjoined, join, pack
from pgpubsub.core.position import (
    Anchor,
    Covered,
    Newest,
    Position,
    Snapshot,
    _as_binary,
    _as_bytes,
    _as_token,
    _compress,
    spans,
    stream_id,
)
from pgpubsub.core.reading import Reading
from pgpubsub.core.sql import check_channel
from pgpubsub.errors import ChannelNameError, PayloadError, PositionError
from tests.fuzz.fuzzing import any_json, any_text, bounded, fuzzed, mutated

# -- frames

NAMES = ["0123456789abcdef", "00000000000000ff", "0123456789abcdeF", ""]

headers = st.builds(
    "pgpubsub/{} {} {}/{} {}".format,
    st.sampled_from(["1", "1", "1", "2", "9999", "10000", "0", "", "\u0661"]),
    st.sampled_from(NAMES),
    st.integers(0, 4) | st.sampled_from([999_999_999, 1_000_000_000, "", "\u0661"]),
    st.integers(0, 4) | st.sampled_from([999_999_999, 1_000_000_000, "", "\u0661"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.just("x" * CHUNK),
)
whole = st.text("xé🐘", max_size=9).flatmap(
    lambda text: st.sampled_from(
        [pack([("a", text * 2000)], lambda: NAMES[0]), pack([("a", text)] * 2, lambda: NAMES[1])]
    )
)
payloads = st.one_of(
    headers, mutated(headers), any_text, whole.flatmap(lambda messages: st.sampled_from([text for _, text in messages]))
)
events = st.lists(st.builds(Notify, st.sampled_from([7, 8]), st.sampled_from("ab"), payloads), max_size=30)


@given(events, st.lists(st.integers(1, 5), max_size=10), st.sampled_from([0, 1, 100, 10_000, 16 << 20]))
@fuzzed
def test_any_notifications_are_joined_or_said_to_be_incomplete(
    events: list[Notify], cuts: list[int], limit: int
) -> None:
    size = sum(len(event.payload.encode(errors="surrogatepass")) + 200 for event in events)
    partial: Partial | None = None
    rest, found = events, 0
    with bounded(size):
        for cut in (*cuts, len(events)):
            batch, rest = rest[:cut], rest[cut:]
            runs, partial = join(partial, batch, limit)
            for run in runs:
                if isinstance(run, Unjoined):
                    assert run.channel in ("a", "b")
                    assert run.why
                else:
                    found += sum(len(event.payload) for event in run)
    assert found <= sum(len(event.payload) for event in events), "more than was sent"


# -- positions

STREAM = stream_id("orders")

xids = st.integers(3, (1 << 63) - 200) | st.integers(3, 2000)


@st.composite
def positions(draw: st.DrawFn) -> Position:
    """Any that a reader could have."""
    below = draw(xids)
    open = sorted(draw(st.sets(st.integers(3, below), max_size=5)) - {below})
    covered = Covered(below, tuple(open))
    anchor = draw(st.none() | st.builds(Anchor, st.integers(1, 1 << 62), st.integers(0, 1 << 55)))
    witness = None
    if anchor is not None and draw(st.booleans()):
        witness = Newest(draw(st.integers(0, below)), Anchor(draw(st.integers(1, 1 << 62)), 5))
    target, last = None, 0
    if draw(st.booleans()):
        target = Covered(below + draw(st.integers(0, 99)), tuple(open[: draw(st.integers(0, 5))]))
        last = draw(st.integers(0, 1 << 62))
    return Position(UUID(int=7), STREAM, draw(st.integers(0, 1 << 32)), covered, anchor, target, last, witness)


def forged(numbers: list[int], flags: bytes, *, compressed: bool) -> str:
    """A token with a checksum that is right, of whatever numbers."""
    fields = b"".join(map(_as_bytes, numbers))
    packed = _compress(fields, flags) if compressed else b"\0" + fields + flags
    plain = UUID(int=7).bytes + STREAM.to_bytes(8, signed=True) + packed
    return _as_token(plain + zlib.crc32(plain).to_bytes(4))


@st.composite
def tokens_with_a_right_checksum(draw: st.DrawFn) -> str:
    plain = bytearray(_as_binary(draw(positions()).encode())[:-4])
    for _ in range(draw(st.integers(0, 4))):
        plain[draw(st.integers(24, len(plain) - 1))] = draw(st.integers(0, 255))
    return _as_token(bytes(plain) + zlib.crc32(plain).to_bytes(4))


@st.composite
def almost_positions(draw: st.DrawFn) -> str:
    """As `Position.encode` writes them, of numbers that need not go together."""
    number = st.integers(0, 9) | st.integers(0, 1 << 66)
    has_target, seen = draw(st.integers(0, 1)), draw(st.integers(0, 3))
    numbers = [1, *(draw(number) for _ in range(3)), has_target, seen]
    numbers += [draw(number) for _ in range(2 * (seen & 1) + 3 * (seen >> 1) + 2 * has_target)]
    count = draw(st.integers(0, 4))
    numbers += [count, *(draw(number) for _ in range(count))]
    return forged(numbers, draw(st.binary(min_size=count, max_size=count)), compressed=draw(st.booleans()))


bombs = st.integers(1 << 10, 1 << 22).map(lambda size: forged([1], bytes(size), compressed=True))
tokens = st.one_of(
    positions().map(Position.encode),
    mutated(positions().map(Position.encode)),
    tokens_with_a_right_checksum(),
    almost_positions(),
    any_text,
    bombs,
)


@given(tokens)
@fuzzed
def test_a_token_is_a_position_that_can_be_read_from_or_none(token: str) -> None:
    try:
        with bounded(1 << 20):  # which a token may have when it is decompressed
            position = Position.decode(token, STREAM)
    except PositionError:
        return
    assert Position.decode(position.encode(), STREAM) == position
    for covered in (position.covered, position.target):
        if covered is not None:
            assert 0 <= covered.below < 1 << 64, "no transaction has such an id"
            assert all(0 <= xid < covered.below for xid in covered.open)
            assert list(covered.open) == sorted(set(covered.open))
    assert 0 <= position.last < 1 << 63
    assert 0 <= position.timeline < 1 << 32
    for newest in (*Reading(STREAM, position).anchors, *Reading(STREAM, position).witnesses):
        assert 0 <= newest.anchor.id < 1 << 63
        assert -1 <= newest.xid < 1 << 64
    list(spans(position.covered, position.target or position.covered))


@given(st.integers(0, 99), st.integers(0, 99), st.sets(st.integers(0, 99)))
@fuzzed
def test_a_snapshot_is_read_as_it_is_written(xmin: int, xmax: int, running: set[int]) -> None:
    text = f"{xmin}:{xmax}:{','.join(map(str, sorted(running)))}"
    assert Snapshot.parse(text) == Snapshot(xmin, xmax, frozenset(running))


# -- what is sent


@given(
    any_text,
    any_text | st.binary(max_size=60) | any_json,
    st.none() | any_text | any_json,
    st.none() | st.dictionaries(any_text, any_json, max_size=3) | any_json,
    st.none() | any_text,
)
@fuzzed
def test_an_entry_is_one_that_the_server_takes_or_is_refused(
    stream: str, payload: object, key: object, headers: object, idempotency_key: object
) -> None:
    with suppress(TypeError, ValueError, PayloadError):
        entry = new_entry(
            stream,
            payload,  # type: ignore[arg-type]
            50,
            key=key,  # type: ignore[arg-type]
            headers=headers,  # type: ignore[arg-type]
            idempotency_key=idempotency_key,  # type: ignore[arg-type]
        )
        assert entry.size <= 50
        for text in (entry.name, entry.key, entry.text, entry.headers, entry.idempotency_key):
            assert text is None or "\0" not in text
            (text or "").encode()
        assert "\\u0000" not in (entry.headers or "").replace("\\\\", "")


@given(any_text)
@fuzzed
def test_a_channel_is_one_or_none(name: str) -> None:
    try:
        check_channel(name)
    except ChannelNameError:
        return
    assert 1 <= len(name.encode()) <= 63
    assert "\0" not in name
