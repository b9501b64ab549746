"""Where a reader stands: what a position covers, and the text that it is kept as."""

from __future__ import annotations

import base64
import random
import re
import tracemalloc
import zlib
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgpubsub.core.position import (
    BEGINNING,
    END,
    FORMAT,
    LONGEST,
    Anchor,
    Covered,
    Position,
    Snapshot,
    _as_bytes,
    spans,
    stream_id,
)
from pgpubsub.errors import PositionError

BIRTH = UUID("12345678-1234-5678-1234-567812345678")
STREAM = stream_id("orders")
XID = 1 << 62
"""More than a server will ever assign."""

URL_SAFE = re.compile(r"[A-Za-z0-9_-]+")


@st.composite
def coverages(draw: st.DrawFn, least: int = 0) -> Covered:
    below = draw(st.integers(least, least + 3000) | st.integers(least, XID))
    if below == 0:
        return Covered()
    near, anywhere = st.integers(max(0, below - 300), below - 1), st.integers(0, below - 1)
    return Covered(below, tuple(sorted(draw(st.sets(near | anywhere, max_size=12)))))


@st.composite
def positions(draw: st.DrawFn) -> Position:
    covered = draw(coverages())
    target = draw(st.none() | coverages(covered.below))
    ids = st.integers(0, (1 << 63) - 1)
    anchors = st.builds(Anchor, ids, st.integers(0, 1 << 60)) if (target or covered).below else st.none()
    anchor = draw(st.none() | anchors)
    last = draw(ids) if target else 0
    streams = st.integers(-(1 << 63), (1 << 63) - 1)
    timelines = st.integers(0, (1 << 32) - 1)
    return Position(draw(st.uuids()), draw(streams), draw(timelines), covered, anchor, target, last)


MIDST = Position(BIRTH, STREAM, 3, Covered(1000, (990, 995)), Anchor(17, 10**15), Covered(1010, (995, 1003)), 12)
SHORT = Position(BIRTH, STREAM, 1)


# -- what is covered


def test_a_snapshot_is_read_from_what_postgresql_says() -> None:
    assert Snapshot.parse("753:756:753,754") == Snapshot(753, 756, frozenset({753, 754}))
    assert Snapshot.parse("753:753:") == Snapshot(753, 753, frozenset())


def test_a_transaction_is_covered_if_it_is_below_and_was_not_open() -> None:
    covered = Covered(756, (753,))
    assert [xid for xid in range(750, 760) if covered.covers(xid)] == [750, 751, 752, 754, 755]
    assert not Covered().covers(0)


def test_going_forward_covers_no_more_than_the_newest_entry_whatever_has_ended() -> None:
    covered = Covered(750).advance(Snapshot.parse("753:800:753,757"), newest=756)
    assert covered == Covered(757, (753,)), "a server that crashes hands out again what has no entry"


def test_the_first_that_was_not_covered_may_be_running() -> None:
    assert Covered(750).advance(Snapshot.parse("750:760:750"), newest=756) == Covered(757, (750,))


def test_what_ended_without_an_entry_to_be_seen_does_not_move_a_position() -> None:
    assert Covered(750).advance(Snapshot.parse("800:800:"), newest=None) == Covered(750)


def test_an_open_transaction_that_has_ended_is_covered() -> None:
    covered = Covered(756, (750, 753)).advance(Snapshot.parse("753:760:753,757"), newest=None)
    assert covered == Covered(756, (753,))


def test_an_open_transaction_that_the_server_does_not_know_yet_stays_open() -> None:
    snapshot = Snapshot.parse("740:750:")
    assert Covered(756, (745, 750, 753)).advance(snapshot, newest=None) == Covered(756, (750, 753))


def test_a_position_never_moves_back() -> None:
    assert Covered(756).advance(Snapshot.parse("740:750:745"), newest=700) == Covered(756)


def test_what_is_running_below_the_position_but_was_covered_stays_covered() -> None:
    assert Covered(756).advance(Snapshot.parse("750:760:750,757"), newest=758) == Covered(759, (757,))


@given(coverages(), st.data())
def test_spans_are_what_one_position_has_and_the_other_has_not(old: Covered, data: st.DataObject) -> None:
    still = tuple(xid for xid in old.open if data.draw(st.booleans()))
    below = old.below + data.draw(st.integers(0, 40))
    new_open = tuple(xid for xid in range(old.below, below) if data.draw(st.booleans()))
    new = Covered(below, still + new_open)
    ranges = list(spans(old, new))
    assert all(low < high for low, high in ranges)
    found = [xid for low, high in ranges for xid in range(low, high)]
    assert len(found) == len(set(found)), "each once"
    candidates = {*old.open, *range(max(0, old.below - 50), below + 5)}
    assert set(found) == {xid for xid in candidates if new.covers(xid) and not old.covers(xid)}


def test_there_is_nothing_between_a_position_and_itself() -> None:
    assert list(spans(Covered(756, (750,)), Covered(756, (750,)))) == []


def test_the_beginning_and_the_end_say_what_they_are() -> None:
    assert [repr(BEGINNING), repr(END)] == ["BEGINNING", "END"]


# -- the text of a position


@given(positions())
@example(SHORT)
@example(MIDST)
def test_a_position_comes_back_from_its_text(position: Position) -> None:
    token = position.encode()
    assert URL_SAFE.fullmatch(token)
    assert Position.decode(token, position.stream) == position


@given(positions(), st.data())
def test_a_position_of_which_one_letter_was_changed_is_refused(position: Position, data: st.DataObject) -> None:
    token = position.encode()
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.characters().filter(lambda letter: letter != token[place]))
    with pytest.raises(PositionError, match="is not a position, or not a whole one|another stream"):
        Position.decode(token[:place] + letter + token[place + 1 :], position.stream)


@pytest.mark.parametrize("position", [SHORT, MIDST])
def test_no_letter_of_a_position_can_be_another(position: Position) -> None:
    token = position.encode()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/= \n\0é\ud800"
    for place, there in enumerate(token):
        for letter in letters.replace(there, ""):
            with pytest.raises(PositionError):
                Position.decode(token[:place] + letter + token[place + 1 :], STREAM)


@pytest.mark.parametrize("position", [SHORT, MIDST])
def test_a_position_of_which_the_end_is_missing_is_refused(position: Position) -> None:
    token = position.encode()
    for length in range(len(token)):
        with pytest.raises(PositionError):
            Position.decode(token[:length], STREAM)


@pytest.mark.parametrize("rest", ["=", "==", "A", "AA", "AAAA", " ", "\n", MIDST.encode()])
def test_a_position_with_something_behind_it_is_refused(rest: str) -> None:
    for position in (SHORT, MIDST):
        with pytest.raises(PositionError):
            Position.decode(position.encode() + rest, STREAM)
        with pytest.raises(PositionError):
            Position.decode(rest + position.encode(), STREAM)


@settings(max_examples=30)
@given(st.text())
@example("")
@example("A" * 32)
@example("beginning")
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(PositionError, match="is not a position, or not a whole one"):
        Position.decode(text, STREAM)


def test_a_long_text_is_not_repeated_in_the_error() -> None:
    with pytest.raises(PositionError) as caught:
        Position.decode("x" * 1_000_000, STREAM)
    assert len(str(caught.value)) < 300
    assert str(caught.value).endswith("pass what Entry.position said, unchanged, or BEGINNING or END")


@pytest.mark.parametrize("wrong", [None, 17, b"AAAA", BEGINNING, SHORT])
def test_what_is_no_text_is_an_error_of_type(wrong: object) -> None:
    with pytest.raises(TypeError, match="a position is a str, BEGINNING or END, not "):
        Position.decode(wrong, STREAM)  # type: ignore[arg-type]


def test_a_position_of_another_stream_is_refused() -> None:
    with pytest.raises(PositionError, match="one of another stream: positions are good for their own only"):
        Position.decode(MIDST.encode(), stream_id("invoices"))


# -- what somebody made by hand: the checksum is no secret


def made(numbers: bytes) -> str:
    plain = BIRTH.bytes + STREAM.to_bytes(8, signed=True) + numbers
    return base64.urlsafe_b64encode(plain + zlib.crc32(plain).to_bytes(4)).decode().rstrip("=")


def deflated(plain: bytes) -> bytes:
    process = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return b"\1" + process.compress(plain) + process.flush()


def test_a_position_of_another_format_is_refused_and_the_error_says_what_to_do() -> None:
    assert Position.decode(made(bytes([0, FORMAT, 1, 0, 0, 0, 0, 0])), STREAM) == SHORT
    with pytest.raises(
        PositionError, match=r"has format 2, and this version of pgpubsub reads 1: use the version that"
    ):
        Position.decode(made(bytes([0, 2, 1, 0, 0, 0, 0, 0])), STREAM)


@pytest.mark.parametrize(
    "numbers",
    [
        b"",
        b"\0",
        b"\1",
        b"\1no deflated data",
        bytes([0, FORMAT]),
        bytes([0, FORMAT, 1, 0, 0, 0]),
        bytes([0, FORMAT, 1, 0, 0, 0, 0, 5]),
        bytes([0, FORMAT, 1, 9, 0, 1, 0, 0, 0, 2, 1, 1, 3]),
        bytes([0, FORMAT, 1, 9, 0, 0, 0, *[0xFF] * 9, 1]),
        bytes([0, *[0x80] * 100, 1]),
        deflated(bytes([FORMAT, 1, 0, 0, 0, 0, 0]))[:-1],
    ],
)
def test_a_position_that_ends_too_early_or_never_is_refused(numbers: bytes) -> None:
    with pytest.raises(PositionError, match="is not a position, or not a whole one"):
        Position.decode(made(numbers), STREAM)


def fields(*numbers: int) -> bytes:
    return bytes([0, FORMAT, *b"".join(map(_as_bytes, numbers))])


@pytest.mark.parametrize(
    "numbers",
    [
        fields(1, 5, 0, 0, 0, 1, 9),
        fields(1, 5, 0, 0, 0, 2, 0, 0),
        fields(1, 5, 0, 0, 0, 2, 1, 0),
        fields(1, 1 << 63, 0, 0, 0, 0),
        fields(1, 5, 0, 1, 0, 9, 0, 0),
        fields(1, 5, 0, 1, 0, 0, 9, 0),
    ],
    ids=["below 0", "its own limit", "twice", "too high", "covered below 0", "a target below 0"],
)
def test_a_position_of_transactions_that_there_cannot_be_is_refused(numbers: bytes) -> None:
    """Its checksum is right: somebody has made it."""
    with pytest.raises(PositionError, match="there are no such"):
        Position.decode(made(numbers), STREAM)


@pytest.mark.parametrize(
    "numbers",
    [
        fields(1, 0, 0, 0, 1, 7, 5, 0),
        fields(1, 5, 0, 0, 3, 7, 5, 6, 7, 5, 0),
        fields(1, 5, 0, 0, 1, 1 << 63, 5, 0),
        fields(1, 5, 0, 0, 1, 7, 1 << 63, 0),
        fields(1, 5, 1 << 63, 1, 0, 0, 0, 0),
    ],
    ids=["of no transaction", "a witness of none", "too high", "too late", "the last too high"],
)
def test_a_position_behind_entries_that_there_cannot_be_is_refused(numbers: bytes) -> None:
    with pytest.raises(PositionError, match="there are no such entries"):
        Position.decode(made(numbers), STREAM)


def test_a_position_in_a_history_that_there_cannot_be_is_refused() -> None:
    with pytest.raises(PositionError, match="there is no such timeline"):
        Position.decode(made(fields(1 << 32, 5, 0, 0, 0, 0)), STREAM)


@given(st.binary(max_size=60), st.booleans())
def test_no_text_with_a_right_checksum_is_more_than_an_error_of_position(numbers: bytes, packed: bool) -> None:
    try:
        Position.decode(made(deflated(numbers) if packed else b"\0" + numbers), STREAM)
    except PositionError:
        pass


@pytest.mark.parametrize("start", [b"", bytes([FORMAT, 1, 0, 0, 0, 0, *[0xFF] * 8, 1])])
def test_a_short_text_that_unpacks_to_very_much_is_refused_before_it_takes_much_memory(start: bytes) -> None:
    token = made(deflated(start + bytes(40 * LONGEST)))
    tracemalloc.start()
    try:
        with pytest.raises(PositionError, match="it is too long"):
            Position.decode(token, STREAM)
        assert tracemalloc.get_traced_memory()[1] < 6 * LONGEST
    finally:
        tracemalloc.stop()


# -- how long it is


def with_open(first: int, among: int, seed: int) -> tuple[int, ...]:
    return tuple(sorted(random.Random(seed).sample(range(first, first + among), 1000)))


NEWEST = Anchor(10**12, 1_700_000_000_000_000)


@settings(max_examples=20)
@given(st.integers(0, 1 << 50), st.integers(1000, 50_000), st.integers())
def test_the_text_is_short_even_with_a_thousand_transactions_open(first: int, among: int, seed: int) -> None:
    open = with_open(first, among, seed)
    covered = Covered(first + among, open)
    token = Position(BIRTH, STREAM, 1, covered, NEWEST).encode()
    assert len(token) < 2048
    target = Covered(first + among + 5000, open)
    in_midst = Position(BIRTH, STREAM, 1, covered, NEWEST, target, 10**12 - 500)
    assert len(in_midst.encode()) < 2048
    assert Position.decode(in_midst.encode(), STREAM) == in_midst


@settings(max_examples=20)
@given(st.integers(0, 1 << 50), st.integers(1000, 4000), st.integers())
def test_the_text_is_short_even_if_a_thousand_others_are_open_behind_the_batch(
    first: int, among: int, seed: int
) -> None:
    covered = Covered(first + among, with_open(first, among, seed))
    target = Covered(first + 2 * among, with_open(first + among, among, seed + 1))
    position = Position(BIRTH, STREAM, 1, covered, NEWEST, target, 10**12 - 500)
    assert len(position.encode()) < 2048
    assert Position.decode(position.encode(), STREAM) == position


def test_the_text_of_a_position_with_little_open_is_short() -> None:
    assert len(Position(BIRTH, STREAM, 1, Covered(10**9, (10**9 - 3,)), NEWEST).encode()) < 80


def test_a_stream_has_the_number_that_the_schema_gives_it() -> None:
    assert stream_id("orders") == 2023957755765852388
    assert stream_id("Bestellungen für 😀") != stream_id("orders")
    assert stream_id("invoices") in range(-(1 << 63), 1 << 63)
