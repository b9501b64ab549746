"""Messages of any length: cut up to be sent, merged and mixed on the way, put together again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count, pairwise
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgpubsub import Notify
from pgpubsub.core.frames import (
    CHUNK,
    HEADER,
    MAX_PAYLOAD,
    Message,
    NewId,
    Partial,
    Run,
    Unjoined,
    join,
    pack,
    unfinished,
)

PID = 7
NAME = "0123456789abcdef"
LIMIT = 7999


def new_names() -> NewId:
    numbers = count(1)
    return lambda: f"{next(numbers):016x}"


def packed(*texts: str) -> list[str]:
    """What is sent for `texts` in one statement on one channel."""
    return [text for _, text in pack([("a", text) for text in texts], new_names())]


def delivered(messages: Iterable[Message], pid: int = PID) -> list[Notify]:
    """What arrives when `messages` are sent in one transaction: the server merges equal ones."""
    return [Notify(pid, *message) for message in dict.fromkeys(messages)]


def joined(events: list[Notify], limit: int = MAX_PAYLOAD) -> list[Notify | Unjoined]:
    """What comes of `events` in one batch, on a new connection."""
    runs, _ = join(None, events, limit)
    return flat(runs)


def flat(runs: list[Run]) -> list[Notify | Unjoined]:
    """All of it in order. Runs have no neighbours that could be one."""
    assert all(runs)
    kinds = [isinstance(run, list) for run in runs]
    assert (True, True) not in pairwise(kinds)
    return [event for run in runs for event in (run if isinstance(run, list) else [run])]


def in_batches(
    events: list[Notify], sizes: Sequence[int], limit: int = MAX_PAYLOAD
) -> tuple[list[Notify | Unjoined], Partial | None]:
    """What comes of `events` in batches of `sizes`, the rest in one. Every call is interrupted once and repeated."""
    partial: Partial | None = None
    result: list[Notify | Unjoined] = []
    start = 0
    for size in (*sizes, len(events)):
        batch, start = events[start : start + size], start + size
        if batch:
            before = repr((partial, batch))
            interrupted = join(partial, batch, limit)
            assert repr((partial, batch)) == before, "what was given is not changed"
            runs, partial = join(partial, batch, limit)
            assert (runs, partial) == interrupted
            result += flat(runs)
    return result, partial


# -- sending


@pytest.mark.parametrize("text", ["", "x", "x" * LIMIT, "é" * 3999 + "x", "日" * 2666, "🐘" * 1999 + "日"])
def test_what_fits_goes_as_it_is(text: str) -> None:
    assert packed(text) == [text]
    assert packed(text, "other") == [text, "other"]


@pytest.mark.parametrize("text", ["x" * 8000, "é" * 4000, "日" * 2667, "🐘" * 2000])
def test_a_byte_more_goes_in_parts(text: str) -> None:
    parts = packed(text)
    assert len(parts) > 1
    assert joined(delivered(("a", part) for part in parts)) == [Notify(PID, "a", text)]


def test_a_chunk_tells_version_name_place_and_number_before_its_text() -> None:
    text = "x" * CHUNK + "y" * CHUNK + "z"
    assert CHUNK == 7936
    assert pack([("a", text)], lambda: NAME) == [
        ("a", f"pgpubsub/1 {NAME} 1/3 {'x' * CHUNK}"),
        ("a", f"pgpubsub/1 {NAME} 2/3 {'y' * CHUNK}"),
        ("a", f"pgpubsub/1 {NAME} 3/3 z"),
    ]


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        ("x" * 2 * CHUNK, 2),
        ("x" * (2 * CHUNK + 1), 3),
        ("é" * (3 * CHUNK // 4), 3),
        ("é" * (3 * CHUNK // 4) + "x", 4),
        ("x" + "é" * (2 * CHUNK // 2), 5),
    ],
)
def test_chunks_are_full_but_for_the_last_and_half_as_long_where_text_is_not_ascii(text: str, chunks: int) -> None:
    assert len(packed(text)) == chunks


def test_a_header_of_the_greatest_length_leaves_room_for_a_full_chunk() -> None:
    header = f"pgpubsub/1 {NAME} 999999999/999999999 "
    assert HEADER.fullmatch(header)
    assert len(header) + CHUNK <= LIMIT


@pytest.mark.parametrize("text", ["pgpubsub/", "pgpubsub/1", f"pgpubsub/1 {NAME} 1/2 text", "pgpubsub/日本語"])
def test_what_begins_as_a_chunk_does_is_sent_as_one(text: str) -> None:
    [chunk] = packed(text)
    assert chunk == f"pgpubsub/1 {1:016x} 1/1 {text}"
    assert packed("first", text) == ["first", chunk]


@pytest.mark.parametrize("text", ["pgpubsub", "pgpubsub 1", " pgpubsub/1", "PGPUBSUB/1", "see pgpubsub/1"])
def test_what_only_contains_the_beginning_of_a_chunk_goes_as_it_is(text: str) -> None:
    assert packed(text) == [text]


def test_a_repetition_becomes_a_chunk_and_a_second_one_another() -> None:
    assert packed("one", "", "one", "", "one") == [
        "one",
        "",
        f"pgpubsub/1 {1:016x} 1/1 one",
        f"pgpubsub/1 {2:016x} 1/1 ",
        f"pgpubsub/1 {3:016x} 1/1 one",
    ]


def test_the_same_text_on_another_channel_is_no_repetition() -> None:
    messages = [("a", "one"), ("b", "one"), ("b", "a")]
    assert pack(messages, new_names()) == messages


def test_equal_long_messages_have_different_names() -> None:
    long = "x" * 8000
    names = [chunk.split(" ")[1] for chunk in packed(long, long)]
    assert len(set(names)) == 2
    assert names == sorted(names), "and stand one after the other"


def test_what_was_given_is_neither_changed_nor_handed_on() -> None:
    messages = [("a", "one"), ("a", "two")]
    pack(messages, new_names()).clear()
    assert messages == [("a", "one"), ("a", "two")]


# -- both ways

any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
sizes_at_which_something_changes = st.sampled_from(
    [LIMIT // 4, CHUNK // 2, CHUNK, LIMIT, LIMIT + 1, 3 * CHUNK // 2, 2 * CHUNK, 3 * CHUNK]
)


@st.composite
def long_texts(draw: st.DrawFn) -> str:
    """Of a length in bytes at which something changes, or a little more or less, and of characters of all lengths."""
    size = draw(sizes_at_which_something_changes) + draw(st.integers(-4, 4))
    before, character, after = draw(any_text), draw(st.sampled_from("xé日🐘")), draw(st.sampled_from(["", "x", "é"]))
    room = max(0, size - len((before + after).encode()))
    return before + character * (room // len(character.encode())) + after


texts_like_frames = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["pgpubsub/", "pgpubsub/1 ", f"pgpubsub/1 {NAME} ", f"pgpubsub/2 {NAME} ", f"pgpubsub/3 {NAME} "]),
    st.sampled_from(["", "1/1 ", "1/2 ", "2/2 ", "3/2 ", "0/1 "]),
    any_text,
    st.sampled_from(["", "x" * LIMIT]),
)
texts = st.one_of(st.sampled_from(["", "x", "é"]), any_text, long_texts(), texts_like_frames)
messages_of_a_transaction = st.lists(st.tuples(st.sampled_from("ab"), texts), min_size=1, max_size=4).flatmap(
    lambda some: st.lists(st.sampled_from(some), max_size=3).map(lambda repeated: [*some, *repeated])
)
batch_sizes = st.lists(st.integers(1, 4), max_size=20)


@given(messages_of_a_transaction, batch_sizes)
@settings(max_examples=300)
def test_every_text_arrives_as_it_was_as_often_as_it_was_sent_and_in_order(
    messages: list[Message], sizes: list[int]
) -> None:
    sent = pack(messages, new_names())
    assert len(set(sent)) == len(sent), "nothing is merged"
    for _, text in sent:
        text.encode()  # no character is cut
        assert len(text.encode()) <= LIMIT
        if HEADER.match(text):
            assert sum(1 if character.isascii() else 4 for character in text) <= LIMIT, "in any encoding"
    events = delivered(sent)
    expected = [Notify(PID, *message) for message in messages]
    assert joined(events) == expected
    assert in_batches(events, sizes) == (expected, None)


# -- receiving what no pgpubsub sends


def chunk_of(message: str, place: str, text: str, *, version: str = "1") -> str:
    return f"pgpubsub/{version} {ord(message):016x} {place} {text}"


def arrive(script: str) -> list[Notify]:
    """`A1/3` is the first of three chunks of message A, its text being `A1`; `A*` is of a later version; others are
    plain texts. `b:` before it is another channel than a, `8:` another process than 7."""
    events = []
    for word in script.split():
        origin, _, what = word.rpartition(":")
        pid, channel = (int(origin), "a") if origin.isdecimal() else (PID, origin or "a")
        if what.endswith("*"):
            text = chunk_of(what[0], "whatever", "it is", version="3")
        elif "/" in what:
            text = chunk_of(what[0], what[1:], what.partition("/")[0])
        else:
            text = what
        events.append(Notify(pid, channel, text))
    return events


def story(events: list[Notify | Unjoined]) -> str:
    """Texts, and a `!` for what could not be joined; where it is not channel a, this before it."""
    words = []
    for event in events:
        text = "!" if isinstance(event, Unjoined) else event.payload
        words.append(text if event.channel == "a" else f"{event.channel}:{text}")
    return " ".join(words)


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("x A1/3 A2/3 A3/3 y", "x A1A2A3 y"),
        ("x A1/1 y", "x A1 y"),
        ("A1/2 A2/2 B1/2 B2/2", "A1A2 B1B2"),
        pytest.param("A2/3 A3/3 x", "! x", id="without the first"),
        pytest.param("A3/3 x", "! x", id="nothing but the last"),
        pytest.param("x A1/3 A3/3 y", "x ! y", id="without the middle"),
        pytest.param("x A1/3 A2/3 y", "x ! y", id="without the last"),
        pytest.param("A1/3 A2/3 B1/2 B2/2", "! B1B2", id="without the last, before another"),
        pytest.param("A2/3 A3/3 B1/2 B2/2", "! B1B2", id="without the first, before another"),
        pytest.param("A1/3 A1/3 A2/3 A3/3 x", "! A1A2A3 x", id="the first twice: it begins anew"),
        pytest.param("A1/3 A2/3 A2/3 A3/3 x", "! x", id="one in the middle twice"),
        pytest.param("A1/2 A2/2 A2/2 x", "A1A2 ! x", id="the last twice, after what was whole"),
        pytest.param("A2/3 A3/3 A1/3 A2/3 A3/3 x", "! A1A2A3 x", id="without the first, and again as a whole"),
        pytest.param("A2/4 A1/4 A3/4 A4/4 x", "! ! x", id="in another order: what went on and what began"),
        pytest.param("A1/4 A3/4 A2/4 A4/4 x", "! x", id="in another order in the middle"),
        pytest.param("A1/3 A2/4 A3/4 A4/4 x", "! x", id="of a number that changes"),
        pytest.param("A1/3 A2/2 x", "! x", id="of a number that changes at the end"),
        pytest.param("A1/2 A2/2 A1/2 A2/2 x", "A1A2 A1A2 x", id="the whole twice"),
        pytest.param("A1/2 x A2/2 y", "! x ! y", id="with another text between: where it ends and where it goes on"),
        pytest.param("A1/2 B1/2 A2/2 B2/2", "! ! ! !", id="two at once: wherever one ends or goes on"),
        pytest.param("A1/2 B1/1 C1/1 x", "! B1 C1 x", id="with others between"),
        pytest.param("A2/3 B1/1 A3/3 x", "! B1 ! x", id="with another between, of what is lost already"),
        pytest.param("A1/2 b:A2/2 x", "! b:! x", id="on two channels"),
        pytest.param("A1/2 b:x A2/2", "! b:x !", id="with another channel between"),
        pytest.param("b:A1/2 x", "b:! x", id="on another channel than what comes next"),
        pytest.param("A1/2 8:A2/2 x", "! ! x", id="from two processes"),
        pytest.param("x A* A* A* y", "x ! y", id="of a later version"),
        pytest.param("A* B* b:B* 8:B* x", "! ! b:! ! x", id="several of a later version"),
        pytest.param("A* B1/2 B2/2", "! B1B2", id="of a later version, before another"),
        pytest.param("A1/3 A* A2/3 A3/3 x", "! x", id="of two versions"),
        pytest.param("A* A1/2 A2/2 x", "! A1A2 x", id="of a later version, and anew in this one"),
    ],
)
def test_what_is_not_whole_is_told_where_it_would_have_been_and_the_rest_arrives(script: str, outcome: str) -> None:
    assert story(joined(arrive(script))) == outcome
    events, partial = in_batches(arrive(script), [1] * 20)
    assert story(events) == outcome
    assert (partial is None) == (not script.endswith("*"))


def test_what_has_only_begun_is_waited_for() -> None:
    events = arrive("x A1/2")
    runs, partial = join(None, events, MAX_PAYLOAD)
    assert story(flat(runs)) == "x"
    assert join(partial, arrive("A2/2 y"), MAX_PAYLOAD) == ([[Notify(PID, "a", "A1A2"), Notify(PID, "a", "y")]], None)


def test_without_chunks_there_is_one_run() -> None:
    events = arrive("x y z")
    assert join(None, events, 1) == ([events], None), "the limit is for what is put together"


def test_nothing_comes_of_nothing() -> None:
    partial = join(None, arrive("A1/2"), MAX_PAYLOAD)[1]
    assert join(partial, [], MAX_PAYLOAD) == ([], partial)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("A1/3 x", "without all of its 3 parts: whoever sends them has to do so in one statement"),
        ("A2/3", "without all of its 3 parts"),
        ("A1/3 A2/9", "without all of its 3 parts"),
        ("A*", "in a later version of the frame format: a newer pgpubsub understands it"),
        ("A1/2 A*", "in a later version"),
        ("A1/2 A2/2", "longer than max_payload, 3 bytes: receive with a larger one"),
    ],
)
def test_it_is_told_why(script: str, why: str) -> None:
    unjoined = joined(arrive(script), limit=3)[0]
    assert isinstance(unjoined, Unjoined)
    assert unjoined.channel == "a"
    assert why in unjoined.why


# -- what is too long


@pytest.mark.parametrize("text", ["é" * 5000, "é" * 4999 + "xy", "x" * 10_000])
def test_a_message_may_have_as_many_bytes_as_the_limit_and_no_more(text: str) -> None:
    events = [*delivered(pack([("a", text), ("a", "next")], new_names())), *arrive("y A1/2 A2/2")]
    rest = [Notify(PID, "a", "next"), Notify(PID, "a", "y"), Notify(PID, "a", "A1A2")]
    assert joined(events, limit=10_000) == [Notify(PID, "a", text), *rest]
    [unjoined, *others] = joined(events, limit=9999)
    assert isinstance(unjoined, Unjoined)
    assert "9999 bytes" in unjoined.why
    assert others == rest


def test_of_a_message_that_is_too_long_nothing_is_kept() -> None:
    events = delivered(pack([("a", "x" * 4 * CHUNK)], new_names()))
    partial: Partial | None = None
    kept = []
    told = 0
    for event in events:
        runs, partial = join(partial, [event], 2 * CHUNK)
        told += len(runs)
        kept.append("" if partial is None or partial.parts is None else "x")
    assert kept == ["x", "x", "", ""]
    assert told == 1


def test_a_single_chunk_can_be_too_long_too() -> None:
    assert story(joined(arrive("A1/1 x"), limit=1)) == "! x"


# -- what only looks like a chunk


@pytest.mark.parametrize(
    "text",
    [
        "pgpubsub/",
        f"pgpubsub/1 {NAME}",
        f"pgpubsub/1 {NAME} ",
        f"pgpubsub/1 {NAME} x",
        f"pgpubsub/1 {NAME} 1/1",
        f"pgpubsub/1 {NAME} 1/1\tx",
        f"pgpubsub/1 {NAME} 1-1 x",
        f"pgpubsub/1 {NAME} 0/1 x",
        f"pgpubsub/1 {NAME} 1/0 x",
        f"pgpubsub/1 {NAME} 2/1 x",
        f"pgpubsub/1 {NAME} 10/9 x",
        f"pgpubsub/1 {NAME} 01/1 x",
        f"pgpubsub/1 {NAME} 1/01 x",
        f"pgpubsub/1 {NAME} 1/1000000000 x",
        f"pgpubsub/1 {NAME} \u0661/\u0661 x",
        f"pgpubsub/1 {NAME.upper()} 1/1 x",
        f"pgpubsub/1 {NAME[1:]} 1/1 x",
        f"pgpubsub/1 {NAME}0 1/1 x",
        f"pgpubsub/1  {NAME} 1/1 x",
        f"pgpubsub/ {NAME} 1/1 x",
        f"pgpubsub/\u0661 {NAME} 1/1 x",
        f"pgpubsub/-1 {NAME} 1/1 x",
        f"pgpubsub/10000 {NAME} 1/1 x",
        f"pgpubsub/1.0 {NAME} 1/1 x",
        f" pgpubsub/1 {NAME} 1/1 x",
        f"PGPUBSUB/1 {NAME} 1/1 x",
    ],
)
def test_what_only_looks_like_a_chunk_is_delivered_as_it_is(text: str) -> None:
    other = Notify(PID, "a", text)
    assert joined([other]) == [other]
    assert story(joined([*arrive("x A1/2 A2/2"), other, *arrive("B1/2")])) == f"x A1A2 {text}"
    assert story(joined([*arrive("A1/2"), other])) == f"! {text}"
    assert joined(delivered(pack([("a", text)], new_names()))) == [other]


@pytest.mark.parametrize("text", ["1/1 x", "", "x", "0/0", "日本語"])
@pytest.mark.parametrize("version", ["3", "10", "9999"])
def test_whatever_a_later_version_says_after_the_name_is_not_taken_for_a_text(version: str, text: str) -> None:
    assert story(joined([Notify(PID, "a", f"pgpubsub/{version} {NAME} {text}"), *arrive("x")])) == "! x"


def test_bytes_that_are_no_text_are_joined_too() -> None:
    events = [Notify(PID, "a", chunk_of("A", place, "\udcff")) for place in ("1/2", "2/2")]
    assert joined(events, limit=2) == [Notify(PID, "a", "\udcff\udcff")], "each is one byte"
    assert story(joined(events, limit=1)) == "!"


def test_a_chunk_may_contain_a_chunk() -> None:
    inner = chunk_of("A", "1/2", "text")
    assert joined([Notify(PID, "a", chunk_of("B", "1/1", inner))]) == [Notify(PID, "a", inner)]


def test_lines_of_a_text_are_kept() -> None:
    text = "\n".join("line" for _ in range(2000)) + "\n"
    assert joined(delivered(pack([("a", text)], new_names()))) == [Notify(PID, "a", text)]


# -- anything in any order, against the rules read another way

places = st.integers(1, 3).flatmap(lambda number: st.integers(1, number).map(lambda index: f"{index}/{number}"))
words = st.builds(
    "{}{}".format,
    st.sampled_from(["", "", "", "", "", "b:", "8:"]),
    st.one_of(
        st.sampled_from("xy"),
        st.builds("{}{}".format, st.sampled_from("AAB"), places),
        st.sampled_from(["A1/2 A2/2", "A1/3 A2/3 A3/3", "B1/2 B2/2"]),
        st.sampled_from(["A*", "B*"]),
    ),
)


class Piece(NamedTuple):
    """What arrived, as `HEADER` reads it; without a name it is no chunk."""

    event: Notify
    version: str = ""
    name: str = ""
    place: str | None = None
    total: str | None = None

    @classmethod
    def of(cls, event: Notify) -> Piece:
        header = HEADER.match(event.payload)
        return cls(event, *header.groups()) if header else cls(event)

    def goes_on(self, before: Piece) -> bool:
        """Whether it is of the same message as its neighbour `before`: it has the same origin and name, does not begin
        one, and the other did not end it."""
        same = bool(self.name) and (*self.event[:2], self.name) == (*before.event[:2], before.name)
        ended = before.place is not None and before.place == before.total
        return same and self.place != "1" and not ended


def expected(events: list[Notify], limit: int) -> Iterator[Notify | type[Unjoined] | None]:
    """A message is whole or it is not; only the last of all may still become so (None)."""
    messages: list[list[Piece]] = []
    for piece in map(Piece.of, events):
        if messages and piece.goes_on(messages[-1][-1]):
            messages[-1].append(piece)
        else:
            messages.append([piece])
    for number, message in enumerate(messages, 1):
        first = message[0].event
        places = [(piece.version, piece.place, piece.total) for piece in message]
        in_order = places == [("1", str(index), message[0].total) for index in range(1, len(message) + 1)]
        text = "".join(piece.event.payload.split(" ", 3)[3] for piece in message) if in_order else ""
        if not message[0].name:
            yield first
        elif not in_order or len(text) > limit:
            yield Unjoined
        elif str(len(message)) == message[0].total:
            yield first._replace(payload=text)
        else:
            yield None if number == len(messages) else Unjoined


@given(st.lists(words, min_size=1, max_size=12), batch_sizes, st.sampled_from([MAX_PAYLOAD, 4]))
@settings(max_examples=500)
@example(["A1/2", "A*"], [], MAX_PAYLOAD)
def test_whatever_comes_in_whatever_batches_nothing_is_lost_altered_or_made_twice(
    script: list[str], sizes: list[int], limit: int
) -> None:
    events = arrive(" ".join(script))
    wanted = list(expected(events, limit))
    result, partial = in_batches(events, sizes, limit)
    assert [type(event) if isinstance(event, Unjoined) else event for event in result] == [
        event for event in wanted if event is not None
    ]
    assert (partial is not None and partial.parts is not None) == (None in wanted)
    assert joined(events, limit) == result


def test_a_message_in_very_many_parts_is_refused_at_its_first() -> None:
    """Each takes memory, however short it is."""
    limit = 256_000
    most, more = (Notify(7, "a", f"pgpubsub/1 {1:016x} 1/{count} ") for count in (2000, 2001))
    runs, partial = join(None, [most], limit)
    assert runs == []
    assert unfinished(partial) == f"{1:016x}"
    runs, partial = join(None, [more], limit)
    assert [type(run) for run in runs] == [Unjoined]
    assert unfinished(partial) is None


def test_it_is_known_whose_end_is_awaited() -> None:
    assert unfinished(None) is None
    _, partial = join(None, [Notify(7, "a", f"pgpubsub/1 {5:016x} 1/2 text")], 100)
    assert unfinished(partial) == f"{5:016x}"
    _, partial = join(partial, [Notify(7, "a", f"pgpubsub/3 {6:016x} of a later version")], 100)
    assert unfinished(partial) is None


def test_where_characters_may_be_longer_only_ascii_has_all_the_room() -> None:
    messages = [("a", "x" * 7999), ("a", "é" * 1999), ("a", "é" * 2000)]
    ascii, fits, does_not = (packed[0][1] for packed in ([pack([one], new_names(), 3999)[0]] for one in messages))
    assert (ascii, fits) == ("x" * 7999, "é" * 1999)
    assert does_not == f"pgpubsub/1 {1:016x} 1/2 " + "é" * 1984
