"""What a slow subscriber gets, and what it is told of the rest."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgpubsub import Gap, GapReason, Notify
from pgpubsub.core.buffer import Buffer, Overflow, payload_bytes

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
BIG = 10**9


class Clock:
    """Seconds since noon; it only moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0

    def __call__(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)


class Subject(Buffer):
    """A buffer, with short ways to put in and take out."""

    def __init__(self, overflow: Overflow, capacity: int = BIG, capacity_bytes: int = BIG) -> None:
        self.clock = Clock()
        super().__init__(capacity, capacity_bytes, overflow, self.clock)
        self.numbers = count(1)

    def fill(self, text: str, payload: str = "") -> None:
        """Put in one batch: a notification on each channel (a letter) of `text`, numbered as they come."""
        events = [Notify(next(self.numbers), channel, payload) for channel in text]
        self.put(events, payload_bytes(events))

    def tell(self, reason: GapReason, channel: str = "a", count: int | None = None) -> Gap:
        """Put in a gap, a second after whatever was before."""
        self.clock.seconds += 1
        gap = Gap(reason, (channel,), self.clock(), count, f"at {self.clock.seconds}")
        self.report(gap)
        return gap

    def rest(self) -> list[Notify | Gap]:
        """Take out everything."""
        return list(iter(self.take, None))

    def story(self) -> str:
        """Take out everything: `a1` is notification 1 on channel a, `(overflow 2)` a gap that counts 2."""
        return " ".join(
            f"({event.reason.name.lower()} {event.count})" if isinstance(event, Gap) else f"{event.channel}{event.pid}"
            for event in self.rest()
        )


LOST = GapReason.CONNECTION_LOST
HEARTBEAT = GapReason.HEARTBEAT
OVERFLOW = GapReason.OVERFLOW
POLICIES: tuple[Overflow, ...] = get_args(Overflow)

every_policy = pytest.mark.parametrize("overflow", POLICIES)


# -- what fits


@pytest.mark.parametrize("capacity", [(0, 1), (1, 0), (-1, 1)])
def test_a_buffer_that_can_hold_nothing_is_refused(capacity: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"holds at least 1: capacity=-?\d, capacity_bytes=\d"):
        Buffer(*capacity, "clear", Clock())


def test_a_capacity_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="a capacity is an int: capacity='5', capacity_bytes=1"):
        Buffer("5", 1, "clear", Clock())  # type: ignore[arg-type]


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="clear, drop_oldest, latest, close, not 'block'"):
        Buffer(1, 1, "block", Clock())  # type: ignore[arg-type]


@every_policy
def test_what_fits_is_taken_in_order(overflow: Overflow) -> None:
    buffer = Subject(overflow, capacity=3)
    buffer.fill("ab")
    buffer.fill("c")
    assert not buffer.overflowed
    assert len(buffer) == 3
    assert buffer.story() == "a1 b2 c3"
    assert (len(buffer), buffer.delivered, buffer.dropped, buffer.gaps) == (0, 3, 0, 0)


@every_policy
def test_an_empty_buffer_gives_nothing(overflow: Overflow) -> None:
    assert Subject(overflow).take() is None


@every_policy
def test_room_that_was_taken_is_room_again(overflow: Overflow) -> None:
    buffer = Subject(overflow, capacity=1, capacity_bytes=2)
    for _ in range(5):
        buffer.fill("a", "é")
        assert buffer.bytes == 2
        assert isinstance(buffer.take(), Notify)
        assert buffer.bytes == 0
    assert (buffer.delivered, buffer.dropped) == (5, 0)


def test_payloads_count_in_bytes_of_utf_8_also_where_they_were_not_text() -> None:
    assert payload_bytes([Notify(1, "a", "é"), Notify(1, "a", "\udcff"), Notify(1, "a", "abc")]) == 2 + 1 + 3


# -- clear


def test_clear_drops_all_that_was_buffered_and_tells_how_many() -> None:
    buffer = Subject("clear", capacity=3)
    buffer.fill("abc")
    buffer.fill("d")
    assert buffer.dropped == 3
    assert buffer.story() == "(overflow 3) d4"


def test_clear_can_happen_within_one_batch() -> None:
    buffer = Subject("clear", capacity=2)
    buffer.fill("abcde")
    assert buffer.story() == "(overflow 4) e5"


def test_overflows_without_a_pause_are_one_gap() -> None:
    buffer = Subject("clear", capacity=1)
    for _ in range(5):
        buffer.fill("a")
    assert len(buffer) == 2
    assert buffer.story() == "(overflow 4) a5"
    assert (buffer.delivered, buffer.dropped, buffer.gaps) == (1, 4, 1)


def test_an_overflow_after_the_gap_was_taken_is_another_gap() -> None:
    buffer = Subject("clear", capacity=1)
    buffer.fill("ab")
    assert isinstance(buffer.take(), Gap)
    buffer.fill("c")
    assert buffer.story() == "(overflow 1) c3"


# -- the gap


def test_the_gap_names_the_channels_the_size_and_the_time_at_which_nothing_was_missing() -> None:
    buffer = Subject("clear", capacity=2, capacity_bytes=1000)
    buffer.clock.seconds = 5
    buffer.fill("b")
    buffer.clock.seconds = 9
    buffer.fill("ab")
    gap = buffer.take()
    assert isinstance(gap, Gap)
    assert gap.channels == ("a", "b")
    assert gap.since == NOON + timedelta(seconds=5)
    assert gap.count == 2
    assert "buffer of 2 notifications and 1000 bytes" in gap.detail


def test_since_moves_on_whenever_the_subscriber_has_caught_up() -> None:
    buffer = Subject("drop_oldest", capacity=1)
    buffer.fill("a")
    buffer.take()
    buffer.clock.seconds = 7
    buffer.fill("bc")
    gap = buffer.take()
    assert isinstance(gap, Gap)
    assert gap.since == NOON + timedelta(seconds=7)


# -- drop_oldest


def test_drop_oldest_keeps_the_newest() -> None:
    buffer = Subject("drop_oldest", capacity=3)
    buffer.fill("abcde")
    assert buffer.dropped == 2
    assert buffer.story() == "(overflow 2) c3 d4 e5"


def test_drop_oldest_makes_as_much_room_as_is_needed_in_bytes() -> None:
    buffer = Subject("drop_oldest", capacity_bytes=10)
    buffer.fill("abc", "xxx")
    buffer.fill("d", "éé")
    assert buffer.bytes == 10
    assert buffer.story() == "(overflow 1) b2 c3 d4"


@pytest.mark.parametrize("capacity", [1, 3])
def test_who_is_always_late_gets_notifications_between_the_gaps(capacity: int) -> None:
    buffer = Subject("drop_oldest", capacity)
    taken = []
    for _ in range(100):
        buffer.fill("a" * (capacity + 1))
        taken.append(buffer.take())
    kinds = [type(event) for event in taken]
    assert kinds == [Gap, Notify] * 50
    counts = sum(event.count or 0 for event in taken if isinstance(event, Gap))
    newest = [event.pid for event in taken if isinstance(event, Notify)]
    assert newest == sorted(newest)
    assert counts + len(newest) == newest[-1]


def test_gaps_of_several_reasons_do_not_take_turns_alone() -> None:
    buffer = Subject("drop_oldest", 2)
    taken = []
    for _ in range(40):
        buffer.fill("aaa")
        buffer.tell(LOST)
        buffer.fill("aaa")
        taken.append(buffer.take())
    assert sum(isinstance(event, Notify) for event in taken) >= 10


def test_what_comes_after_a_gap_waits_for_the_subscriber_and_takes_no_room() -> None:
    buffer = Subject("drop_oldest", capacity=2, capacity_bytes=6)
    buffer.fill("abc", "xx")
    buffer.tell(LOST)
    assert isinstance(buffer.take(), Gap)
    buffer.fill("def", "xx")
    assert (len(buffer), buffer.bytes, buffer.delivered, buffer.dropped) == (5, 6, 0, 3)
    buffer.fill("g", "x" * 7)
    assert buffer.story() == "b2 (overflow 5) (connection_lost None)"


def test_what_comes_after_a_gap_can_be_forgotten() -> None:
    buffer = Subject("drop_oldest", capacity=2)
    buffer.fill("abc")
    buffer.take()
    buffer.fill("cd")
    buffer.forget("b")
    assert (buffer.delivered, buffer.dropped) == (0, 2)
    assert buffer.story() == "(overflow 1) c4 d5"


@pytest.mark.parametrize("overflow", ["clear", "drop_oldest", "latest"])
def test_what_is_too_long_for_an_empty_buffer_is_a_gap(overflow: Overflow) -> None:
    buffer = Subject(overflow, capacity_bytes=3)
    buffer.fill("a", "xx")
    buffer.fill("b", "xxxx")
    buffer.fill("c", "xx")
    assert buffer.story() == "(overflow 2) c3"
    assert buffer.bytes == 0


# -- latest


def test_latest_keeps_the_newest_of_each_channel_and_no_gap_says_so() -> None:
    buffer = Subject("latest", capacity=3)
    buffer.fill("ababcbb")
    buffer.fill("a")
    assert buffer.story() == "c5 b7 a8"
    assert (buffer.delivered, buffer.dropped, buffer.gaps) == (3, 5, 0)


def test_latest_drops_the_oldest_when_there_are_too_many_channels_and_says_so() -> None:
    buffer = Subject("latest", capacity=2)
    buffer.fill("abcb")
    assert buffer.story() == "(overflow 1) c3 b4"


def test_latest_counts_only_the_bytes_that_it_keeps() -> None:
    buffer = Subject("latest", capacity_bytes=4)
    for _ in range(5):
        buffer.fill("aab", "xx")
    assert buffer.bytes == 4
    assert buffer.story() == "a14 b15"


# -- close


def test_close_keeps_what_was_buffered_and_takes_nothing_more() -> None:
    buffer = Subject("close", capacity=2)
    buffer.fill("abcd")
    assert buffer.overflowed
    buffer.fill("e")
    assert buffer.dropped == 2
    assert buffer.story() == "a1 b2"
    buffer.fill("f")
    assert buffer.story() == ""


def test_close_ends_with_a_payload_that_can_never_fit() -> None:
    buffer = Subject("close", capacity_bytes=3)
    buffer.fill("a", "xxxx")
    assert buffer.overflowed
    assert buffer.story() == ""


# -- gaps that are put in


@every_policy
def test_a_gap_stands_where_it_was_put_in(overflow: Overflow) -> None:
    buffer = Subject(overflow)
    buffer.fill("a")
    buffer.tell(LOST)
    buffer.fill("b")
    assert len(buffer) == 3
    assert buffer.story() == "a1 (connection_lost None) b2"
    assert (buffer.delivered, buffer.gaps) == (2, 1)


@every_policy
def test_a_gap_needs_no_room(overflow: Overflow) -> None:
    buffer = Subject(overflow, capacity=1)
    buffer.fill("a")
    buffer.tell(LOST)
    buffer.tell(HEARTBEAT)
    assert buffer.story() == "a1 (connection_lost None) (heartbeat None)"
    assert not buffer.overflowed


@every_policy
@pytest.mark.parametrize("before", ["", "a"])
def test_neighbours_with_one_reason_become_one_gap(overflow: Overflow, before: str) -> None:
    buffer = Subject(overflow)
    buffer.fill(before)
    for channel, reason in (("b", LOST), ("a", HEARTBEAT), ("a", LOST), ("b", LOST)):
        buffer.tell(reason, channel)
    assert buffer.rest()[len(before) :] == [
        Gap(LOST, ("a", "b"), NOON + timedelta(seconds=1), None, "at 4"),
        Gap(HEARTBEAT, ("a",), NOON + timedelta(seconds=2), None, "at 2"),
    ]


@pytest.mark.parametrize(("counts", "together"), [((2, 3), 5), ((2, None), None), ((None, 3), None)])
def test_the_count_of_a_merged_gap_is_known_only_if_all_are(counts: tuple[int | None, ...], together: int) -> None:
    buffer = Subject("clear")
    for known in counts:
        buffer.tell(OVERFLOW, count=known)
    [gap] = buffer.rest()
    assert isinstance(gap, Gap)
    assert gap.count == together


def test_a_merged_gap_begins_with_the_earliest_whatever_the_order() -> None:
    buffer = Subject("clear")
    for seconds in (5, 3, 8):
        buffer.report(Gap(LOST, ("a",), NOON + timedelta(seconds=seconds), None, ""))
    [gap] = buffer.rest()
    assert isinstance(gap, Gap)
    assert gap.since == NOON + timedelta(seconds=3)


def test_a_count_that_nobody_knows_stays_unknown_when_more_is_dropped() -> None:
    buffer = Subject("clear", capacity=1)
    buffer.tell(OVERFLOW)
    buffer.fill("ab")
    assert buffer.story() == "(overflow None) b2"
    buffer.tell(OVERFLOW)
    buffer.fill("cdef")
    assert buffer.story() == "(overflow None) f6"


@pytest.mark.parametrize("overflow", ["clear", "drop_oldest"])
def test_gaps_survive_an_overflow(overflow: Overflow) -> None:
    buffer = Subject(overflow, capacity=2)
    buffer.fill("a")
    buffer.tell(LOST)
    buffer.fill("b")
    buffer.tell(HEARTBEAT)
    buffer.fill("cd")
    assert buffer.dropped == 2
    assert buffer.story().startswith("(overflow 2) (connection_lost None) (heartbeat None) ")


def test_a_gap_after_losses_that_nothing_separates_from_it_joins_them() -> None:
    buffer = Subject("clear", capacity=1, capacity_bytes=1)
    buffer.tell(LOST, "a")
    buffer.fill("a")
    buffer.fill("b", "too long")
    buffer.tell(LOST, "b")
    buffer.tell(HEARTBEAT)
    assert buffer.story() == "(connection_lost None) (overflow 2) (heartbeat None)"


def test_gaps_that_become_neighbours_become_one_so_a_flapping_connection_does_not_fill_the_memory() -> None:
    buffer = Subject("latest")
    for _ in range(100):
        buffer.fill("a")
        buffer.tell(LOST)
    assert len(buffer) <= 3
    assert buffer.story() == "(connection_lost None) a100 (connection_lost None)"


# -- forgetting


@every_policy
def test_what_is_buffered_of_a_channel_can_be_forgotten_without_a_gap(overflow: Overflow) -> None:
    buffer = Subject(overflow, capacity=2)
    buffer.fill("a", "xx")
    buffer.tell(LOST)
    buffer.fill("b", "é")
    buffer.forget("a")
    assert (len(buffer), buffer.bytes) == (2, 2)
    buffer.fill("c")
    assert buffer.story() == "(connection_lost None) b2 c3"
    assert (buffer.delivered, buffer.dropped) == (2, 0)


def test_a_gap_joins_the_nearest_of_its_reason() -> None:
    buffer = Subject("drop_oldest", capacity=1)
    for channel in "ab":
        buffer.tell(LOST, channel)
        buffer.fill(channel)
    buffer.forget("b")
    buffer.tell(LOST, "c")
    told = [(event.reason, event.channels) for event in buffer.rest() if isinstance(event, Gap)]
    assert told == [(LOST, ("a",)), (OVERFLOW, ("a",)), (LOST, ("b", "c"))]


def test_gaps_between_which_everything_was_forgotten_become_one() -> None:
    buffer = Subject("clear")
    for _ in range(3):
        buffer.fill("a")
        buffer.tell(LOST)
    buffer.forget("a")
    assert buffer.story() == "(connection_lost None)"


@every_policy
def test_a_cleared_buffer_is_as_new_but_for_its_counters(overflow: Overflow) -> None:
    buffer = Subject(overflow, capacity=2)
    buffer.fill("a")
    buffer.take()
    buffer.fill("bc", "xx")
    buffer.tell(LOST)
    buffer.clear()
    assert (len(buffer), buffer.bytes, buffer.delivered, buffer.dropped, buffer.gaps) == (0, 0, 1, 0, 0)
    buffer.fill("de")
    assert buffer.story() == "d4 e5"


def test_gaps_of_an_overflow_are_cleared_too() -> None:
    buffer = Subject("clear", capacity=1)
    buffer.fill("ab")
    buffer.clear()
    assert buffer.story() == ""


# -- putting back


@every_policy
def test_what_could_not_be_handed_over_is_the_next_again(overflow: Overflow) -> None:
    buffer = Subject(overflow)
    buffer.fill("ab", "xx")
    event = buffer.take()
    assert event is not None
    buffer.restore(event)
    assert (len(buffer), buffer.bytes, buffer.delivered) == (2, 4, 0)
    assert buffer.story() == "a1 b2"


@pytest.mark.parametrize("capacity", [1, 5])
def test_a_gap_that_could_not_be_handed_over_is_the_next_again(capacity: int) -> None:
    buffer = Subject("clear", capacity=capacity)
    buffer.tell(LOST)
    buffer.fill("ab")
    gap = buffer.take()
    assert gap is not None
    assert buffer.gaps == 1
    buffer.restore(gap)
    assert buffer.gaps == 0
    assert gap in buffer.rest()


def test_what_is_put_back_comes_before_what_was_lost_meanwhile() -> None:
    buffer = Subject("drop_oldest", capacity=2)
    buffer.fill("abc")
    gap = buffer.take()
    assert gap is not None
    buffer.fill("d")
    buffer.restore(gap)
    assert buffer.take() == gap
    buffer.fill("e")
    assert buffer.story() == "b2 (overflow 1) d4 e5"
    buffer.fill("fg")
    event = buffer.take()
    assert event is not None
    buffer.fill("hi")
    buffer.restore(event)
    assert buffer.story() == "f6 (overflow 1) h8 i9"


def test_a_gap_that_is_put_back_comes_before_what_does_not_fit_afterwards() -> None:
    buffer = Subject("latest", 1, 1)
    buffer.fill("a", "too long")
    gap = buffer.take()
    assert isinstance(gap, Gap)
    buffer.restore(gap)
    buffer.tell(GapReason.CONNECTION_LOST, "c")
    buffer.fill("b", "too long")
    assert buffer.take() == gap
    assert {gap.channels for gap in buffer.rest() if isinstance(gap, Gap)} == {("b",), ("c",)}


@pytest.mark.parametrize("overflow", ["clear", "drop_oldest"])
def test_what_is_put_back_is_not_dropped_since_it_may_be_older_than_the_gap_would_say(overflow: Overflow) -> None:
    buffer = Subject(overflow, capacity=2, capacity_bytes=10)
    buffer.fill("a", "xxxxx")
    event = buffer.take()
    buffer.clock.seconds = 9  # it was complete until here, as far as it knows
    buffer.fill("b", "xxxxx")
    assert event is not None
    buffer.restore(event)
    assert buffer.bytes == 10
    buffer.fill("c", "xxxxxx")
    assert buffer.story() == "a1 (overflow 1) c3"


def test_what_is_put_back_is_kept_even_if_there_is_no_room_for_it_any_more() -> None:
    buffer = Subject("clear", capacity=1)
    buffer.fill("a")
    event = buffer.take()
    buffer.fill("b")
    assert event is not None
    buffer.restore(event)
    assert buffer.story() == "a1 b2"


def test_what_goes_in_a_flood_is_not_measured_again_and_again() -> None:
    """With a subscriber that does not move, each notification must not cost a look at all that is buffered."""
    looks = 0

    class Payload(str):
        __slots__ = ()

        def isascii(self) -> bool:
            nonlocal looks
            looks += 1
            return super().isascii()

    buffer = Buffer(1000, BIG, "drop_oldest", Clock())
    for number in range(2000):
        buffer.put([Notify(number, "a", Payload("x"))], 1)
    assert looks < 10 * 2000


# -- everything at once


class Model:
    """What a subscriber is owed, as a plain list in the order in which it came, with a gap for each notification that
    was dropped, at its place; and what the buffer makes of that."""

    def __init__(self, overflow: Overflow, capacity: int, capacity_bytes: int) -> None:
        self.overflow = overflow
        self.capacity = capacity
        self.capacity_bytes = capacity_bytes
        self.owed: list[Notify | Gap] = []
        self.empty_at = NOON
        self.taken = self.dropped = self.gaps = 0
        self.kept: list[Notify] = []  # that are not dropped: put back, or next after a gap
        self._next: list[Notify | Gap] = []
        self.after_gap = False
        self.closed = False

    @property
    def notifications(self) -> list[Notify]:
        return [event for event in self.owed if isinstance(event, Notify)]

    @property
    def held(self) -> list[Notify]:
        """Those that count."""
        return [event for event in self.notifications if event not in self.kept]

    @property
    def next(self) -> list[Notify | Gap]:
        """Those that come first, whatever is lost: kept ones, and the gaps before them."""
        return [event for event in self._next if any(event is one for one in self.owed)]

    def put(self, events: list[Notify], now: datetime) -> None:
        if self.closed:
            return
        if not self.owed:
            self.empty_at = now
        if self.overflow == "latest":
            newest = {event.channel: event for event in events}
            replaced = [event for event in (*self.notifications, *events) if event.channel in newest]
            self.dropped += len(replaced) - len(newest)
            self.owed = [event for event in self.owed if event not in replaced]
            events = [event for event in events if event is newest[event.channel]]
        for event in events:
            self.owed.append(event)
            while not self.closed and not self.fits():
                if self.overflow == "close":
                    self.closed = True
                elif self.overflow != "clear" and self.after_gap and not self.next and self.held[0] is not event:
                    self.kept = self.held[:1]
                    self._next = self.owed[: self.owed.index(self.kept[0]) + 1]
                else:
                    gone = self.held[:-1] if self.overflow == "clear" else self.held[:1]
                    self.lose(gone or [event])
            if self.closed:
                self.owed.remove(event)
                self.dropped += 1

    def fits(self) -> bool:
        return len(self.held) <= self.capacity and payload_bytes(self.held) <= self.capacity_bytes

    def lose(self, gone: list[Notify]) -> None:
        self.dropped += len(gone)
        for event in gone:
            self.owed[self.owed.index(event)] = Gap(OVERFLOW, (event.channel,), self.empty_at, 1, "")

    def take(self, event: Notify | Gap | None) -> None:
        """The buffer gave `event`."""
        if event is None:
            assert not self.owed
        elif isinstance(event, Notify):
            assert event == self.owed.pop(0), "in order, and no gap is passed over"
            self.taken += 1
            self.after_gap = False
        else:
            self.take_gap(event)
            self.gaps += 1
            self.after_gap = True

    def take_gap(self, gap: Gap) -> None:
        """It is those with its reason that nothing separates from here; perhaps not all of them."""
        here: list[Gap] = []
        for event in self.owed:
            if isinstance(event, Notify):
                break
            if event.reason is gap.reason:
                here.append(event)
        for number in range(1, len(here) + 1):
            if without_words(gap) == united(here[:number]):
                for one in here[:number]:
                    self.owed.remove(one)
                return
        raise AssertionError(f"{gap} is none of {here}")

    def restore(self, event: Notify | Gap) -> None:
        """The buffer took `event`, the last that it gave, back."""
        if isinstance(event, Gap):
            event = without_words(event)
            self.gaps -= 1
        else:
            self.kept.append(event)
            self.taken -= 1
        self.owed.insert(0, event)
        self._next = [event, *self.next]

    def check(self, buffer: Buffer) -> None:
        held = len(self.notifications)
        assert buffer.bytes == payload_bytes(self.notifications)
        assert self.fits() or self.closed
        assert (buffer.delivered, buffer.dropped, buffer.gaps) == (self.taken, self.dropped, self.gaps)
        assert buffer.overflowed == self.closed
        gaps = len(buffer) - held
        assert (len(self.owed) > held) <= gaps <= len(GapReason) * (held + 2), "however many were put in"


def without_words(gap: Gap) -> Gap:
    """The words of an overflow are tested elsewhere."""
    return replace(gap, detail="") if gap.reason is OVERFLOW else gap


def united(gaps: list[Gap]) -> Gap:
    return Gap(
        gaps[0].reason,
        tuple(sorted({channel for gap in gaps for channel in gap.channels})),
        min(gap.since for gap in gaps),
        None if any(gap.count is None for gap in gaps) else sum(gap.count or 0 for gap in gaps),
        gaps[-1].detail,
    )


channels = st.sampled_from("abcd")
operations = st.one_of(
    st.tuples(
        st.just("put"), st.lists(st.tuples(channels, st.sampled_from(["", "x", "é", "xxx", "x" * 9])), max_size=6)
    ),
    st.tuples(st.just("take"), st.integers(1, 4)),
    st.tuples(
        st.just("report"), st.tuples(st.sampled_from([LOST, HEARTBEAT]), channels, st.none() | st.integers(1, 9))
    ),
    st.tuples(st.just("forget"), channels),
    st.tuples(st.just("restore"), st.none()),
    st.tuples(st.just("clear"), st.none()),
)


@every_policy
@given(capacity=st.integers(1, 5), capacity_bytes=st.integers(1, 12), script=st.lists(operations, max_size=40))
@settings(max_examples=150)
def test_everything_is_taken_in_order_or_counted_where_it_is_missing(
    overflow: Overflow, capacity: int, capacity_bytes: int, script: list[tuple[str, Any]]
) -> None:
    buffer = Subject(overflow, capacity, capacity_bytes)
    model = Model(overflow, capacity, capacity_bytes)
    last: Notify | Gap | None = None  # what was taken and may be put back
    for operation, argument in script:
        buffer.clock.seconds += 1
        if operation == "put":
            events = [Notify(next(buffer.numbers), channel, payload) for channel, payload in argument]
            buffer.put(events, payload_bytes(events))
            model.put(events, buffer.clock())
        elif operation == "take":
            for _ in range(argument):
                last = buffer.take()
                model.take(last)
        elif operation == "report":
            model.owed.append(buffer.tell(*argument))
        elif operation == "restore" and last is not None:
            buffer.restore(last)
            model.restore(last)
            last = None
        elif operation == "forget":
            buffer.forget(argument)
            model.owed = [event for event in model.owed if isinstance(event, Gap) or event.channel != argument]
            last = None
        elif operation == "clear":
            buffer.clear()
            model.owed, last = [], None
        model.check(buffer)
    for _ in range(len(buffer) + 1):
        model.take(buffer.take())
    model.check(buffer)
