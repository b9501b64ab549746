"""From one position to the next, step by step. `tests/sim` has writers, standbys and crashes, and the promises."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from pgpubsub import GapReason
from pgpubsub.core.position import Anchor, Covered, Position, Snapshot
from pgpubsub.core.reading import HIGHEST, PAST, Ask, Batch, Find, Look, Measure, Newest, Page, Reading
from pgpubsub.core.trimmed import Trimmed

STREAM = 5
BIRTH, ANOTHER = UUID(int=1), UUID(int=2)


def newest(xid: int, id: int = 0) -> Newest:
    return Newest(xid, Anchor(id or xid * 10, xid * 1000))


class Subject(Reading):
    """A reading that has a session, with short ways to report."""

    def __init__(self, start: Position | None = None, *, standby: bool = False) -> None:
        super().__init__(STREAM, start, standby=standby)
        self.on_session(BIRTH, 1)

    def look(self, snapshot: str, new: Newest | None, last: int | None) -> Batch | None:
        """It looked, and these were few."""
        assert isinstance(self.next_step(), Look)
        return self.on_looked(Snapshot.parse(snapshot), new, last)

    def measure(self, snapshot: str, new: Newest | None, until: int | None) -> None:
        """There were many."""
        self.on_many()
        assert isinstance(self.next_step(), Measure)
        self.on_measured(Snapshot.parse(snapshot), new, until)

    def find(self, running: set[int], xmax: int, new: Newest | None, seen: set[int], until: int | None) -> None:
        """It asked a standby, and found."""
        assert isinstance(self.next_step(), Ask)
        self.on_asked(running, xmax)
        assert self.next_step() == Find(self.position.covered, frozenset(running), xmax)
        self.on_found(new, seen, until)

    def advance(self, xid: int) -> None:
        """One more entry."""
        assert self.look(f"{xid + 1}:{xid + 1}:", newest(xid), xid * 10) is not None

    @property
    def covered(self) -> Covered:
        return self.position.covered


def resumed(position: Position, *, standby: bool = False) -> Subject:
    """Another one, that goes on there."""
    return Subject(Position.decode(position.encode(), STREAM), standby=standby)


@pytest.fixture
def reading() -> Subject:
    return Subject()


@pytest.fixture
def standby() -> Subject:
    return Subject(standby=True)


# -- few entries


def test_it_begins_with_a_look_from_the_oldest_entry_on(reading: Subject) -> None:
    assert reading.next_step() == Look(Covered())
    assert reading.position == Position(BIRTH, STREAM, 1)
    assert not reading.in_midst


def test_a_look_that_brings_entries_is_a_batch_and_the_next_look_begins_behind_it(reading: Subject) -> None:
    batch = reading.look("103:110:103,107", newest(105), 1050)
    assert batch is not None
    assert reading.position == batch.after
    assert reading.position == Position(BIRTH, STREAM, 1, Covered(106, (103,)), newest(105).anchor)
    assert reading.next_step() == Look(Covered(106, (103,)))
    assert not reading.in_midst


def test_a_look_that_brings_nothing_is_no_batch_but_what_has_ended_is_not_looked_for_again(reading: Subject) -> None:
    reading.look("103:110:103,104", newest(105), 1050)
    assert reading.look("103:110:103", None, None) is None
    assert reading.next_step() == Look(Covered(106, (103,)))


def test_entries_of_a_transaction_that_was_open_leave_the_anchor_where_it_is(reading: Subject) -> None:
    reading.look("103:110:103", newest(105), 1050)
    batch = reading.look("110:110:", None, 1030)
    assert batch is not None
    assert reading.position == Position(BIRTH, STREAM, 1, Covered(106), newest(105).anchor)
    assert batch.position(1020).anchor == newest(105).anchor


def test_every_entry_of_a_batch_has_its_own_position_and_that_of_the_last_is_behind_the_batch(reading: Subject) -> None:
    reading.advance(100)
    batch = reading.look("103:110:103", newest(105), 1050)
    assert batch is not None
    assert batch.stream == STREAM
    middle = batch.position(1030)
    assert middle == Position(BIRTH, STREAM, 1, Covered(101), newest(105).anchor, Covered(106, (103,)), 1030)
    assert batch.position(1050) == reading.position
    assert batch.position(1040) == Position(
        BIRTH, STREAM, 1, Covered(101), newest(105).anchor, Covered(106, (103,)), 1040
    )


def test_who_stopped_in_the_midst_of_a_batch_goes_on_behind_the_entry_and_to_the_same_end(reading: Subject) -> None:
    reading.advance(100)
    batch = reading.look("103:110:103", newest(105), 1050)
    assert batch is not None
    other = resumed(batch.position(1030))
    assert other.in_midst
    assert other.next_step() == Page(Covered(101), Covered(106, (103,)), 1030, HIGHEST)
    other.on_page(1050, True)
    assert other.position == reading.position


def test_who_stopped_behind_a_batch_looks_for_the_next(reading: Subject) -> None:
    reading.look("103:110:103", newest(105), 1050)
    other = resumed(reading.position)
    assert other.next_step() == Look(Covered(106, (103,)))


# -- many entries


def test_if_there_are_many_it_measures_and_then_reads_page_by_page_in_the_order_of_ids(reading: Subject) -> None:
    reading.advance(100)
    reading.on_many()
    assert reading.in_midst
    assert reading.next_step() == Measure(Covered(101))
    reading.on_measured(Snapshot.parse("103:110:103"), newest(105), 1090)
    assert reading.next_step() == Page(Covered(101), Covered(106, (103,)), None, 1090)
    batch = reading.on_page(1030, False)
    assert batch.position(1020).last == 1020
    assert batch.position(1030) == reading.position
    assert reading.position.covered == Covered(101), "not before the last page"
    assert reading.in_midst
    assert reading.next_step() == Page(Covered(101), Covered(106, (103,)), 1030, 1090)
    reading.on_page(1089, False)
    assert reading.next_step() == Page(Covered(101), Covered(106, (103,)), 1089, 1090)
    batch = reading.on_page(1090, False)
    assert reading.position == batch.after
    assert batch.position(1090) == Position(BIRTH, STREAM, 1, Covered(106, (103,)), newest(105).anchor)
    assert batch.position(1080).target is not None
    assert (reading.in_midst, reading.next_step()) == (False, Look(Covered(106, (103,))))


@pytest.mark.parametrize(("last", "done"), [(1050, True), (None, True), (None, False), (1090, False), (1095, False)])
def test_the_last_page_is_one_that_says_so_or_is_empty_or_goes_as_far_as_was_measured(
    reading: Subject, last: int | None, done: bool
) -> None:
    reading.measure("110:110:", newest(105), 1090)
    batch = reading.on_page(last, done)
    assert batch.last == last
    assert reading.covered == Covered(106)
    assert reading.position.target is None
    assert reading.position.last == 0


def test_a_page_on_which_the_last_entry_is_not_of_the_batch_leaves_the_one_before_it_in_the_midst(
    reading: Subject,
) -> None:
    reading.measure("110:110:", newest(105), 1090)
    batch = reading.on_page(1090, True)
    assert resumed(batch.position(1080)).next_step() == Page(Covered(), Covered(106), 1080, HIGHEST)


def test_who_stopped_in_the_midst_reads_to_a_page_that_is_the_last_for_nobody_knows_how_far_it_is(
    reading: Subject,
) -> None:
    reading.measure("110:110:", newest(105), 1090)
    other = resumed(reading.on_page(1030, False).position(1030))
    assert other.next_step() == Page(Covered(), Covered(106), 1030, HIGHEST)
    other.on_page(1090, False)
    assert other.next_step() == Page(Covered(), Covered(106), 1090, HIGHEST)
    other.on_page(1090, True)
    assert other.covered == Covered(106)


def test_how_far_one_batch_went_does_not_end_the_next(reading: Subject) -> None:
    reading.measure("110:110:", newest(105), 1090)
    reading.on_page(1090, True)
    reading.measure("120:120:", newest(115), 1190)
    reading.on_page(1150, False)
    assert reading.next_step() == Page(Covered(106), Covered(116), 1150, 1190)


@pytest.mark.parametrize(("new", "until"), [(None, None), (None, 1050)])
def test_if_there_is_nothing_after_all_it_looks_again(reading: Subject, new: Newest | None, until: int | None) -> None:
    reading.advance(105)
    before = reading.position
    reading.measure("110:110:", new, until)
    assert reading.position == before
    assert not reading.in_midst
    assert isinstance(reading.next_step(), Look)


def test_if_only_what_was_open_has_ended_the_anchor_stays(reading: Subject) -> None:
    reading.look("103:110:103", newest(105), 1050)
    reading.measure("110:110:", None, 1050)
    assert reading.next_step() == Page(Covered(106, (103,)), Covered(106), None, 1050)
    assert reading.position.anchor == newest(105).anchor


def test_a_step_whose_answer_was_lost_is_asked_for_again(reading: Subject) -> None:
    for _ in range(2):
        assert isinstance(reading.next_step(), Look)
    reading.on_many()
    for _ in range(2):
        assert isinstance(reading.next_step(), Measure)
    reading.on_measured(Snapshot.parse("110:110:"), newest(105), 1090)
    for _ in range(2):
        assert isinstance(reading.next_step(), Page)


def test_it_can_begin_at_the_end(reading: Subject) -> None:
    reading.measure("103:110:103", newest(105), 1090)
    reading.on_passed_over()
    assert reading.position == Position(BIRTH, STREAM, 1, Covered(106, (103,)), newest(105).anchor)
    assert reading.next_step() == Look(Covered(106, (103,)))
    assert not reading.in_midst


def test_passing_over_nothing_changes_nothing(reading: Subject) -> None:
    reading.advance(105)
    before = reading.position
    reading.on_passed_over()
    assert reading.position == before


# -- on a standby


def test_a_standby_is_asked_what_is_running_before_it_is_believed_what_is_visible(standby: Subject) -> None:
    assert standby.next_step() == Ask((), None)
    standby.on_asked([103, 107], 110)
    assert standby.in_midst
    assert standby.next_step() == Find(Covered(), frozenset({103, 107}), 110)
    standby.on_found(newest(105), [], 1090)
    assert standby.next_step() == Page(Covered(), Covered(106, (103,)), None, 1090)
    standby.on_page(1090, True)
    assert standby.position == Position(BIRTH, STREAM, 1, Covered(106, (103,)), newest(105).anchor)
    assert not standby.in_midst


def test_the_next_time_it_asks_only_for_what_was_running_or_is_new(standby: Subject) -> None:
    standby.find({103, 107}, 110, newest(105), set(), 1090)
    standby.on_page(1090, True)
    assert standby.next_step() == Ask((103, 107), 110)


def test_it_asks_for_what_was_open_when_it_resumed() -> None:
    standby = Subject(Position(BIRTH, STREAM, 1, Covered(106, (98, 103)), newest(105).anchor), standby=True)
    assert standby.next_step() == Ask((98, 103), None)


def test_what_ended_between_the_question_and_the_look_is_covered_if_it_was_seen(standby: Subject) -> None:
    standby.find({103, 105}, 107, newest(108), {105, 108}, 1090)
    assert standby.position.target == Covered(109, (103, 107)), "of 107 nobody knows anything"


def test_what_was_open_and_is_running_or_unknown_to_the_standby_stays_open(standby: Subject) -> None:
    standby = Subject(Position(BIRTH, STREAM, 1, Covered(110, (98, 103, 107, 108)), newest(109).anchor), standby=True)
    standby.find({103}, 107, newest(106), {108}, 1090)
    assert standby.position.target == Covered(110, (103, 107))
    assert standby.position.anchor == newest(109).anchor, "an older entry is not the anchor"


def test_a_position_does_not_move_back_on_a_standby_that_lags_behind() -> None:
    start = Position(BIRTH, STREAM, 1, Covered(110), newest(109).anchor)
    standby = Subject(start, standby=True)
    standby.find({100}, 102, newest(99), set(), 990)
    assert standby.position == start
    assert isinstance(standby.next_step(), Ask)


def test_what_is_running_on_a_standby_and_was_covered_elsewhere_stays_covered() -> None:
    standby = Subject(Position(BIRTH, STREAM, 1, Covered(106), newest(105).anchor), standby=True)
    standby.find({103, 107}, 108, newest(108), {108}, 1090)
    assert standby.position.target == Covered(109, (107,))


def test_an_empty_stream_on_a_standby_is_asked_for_again(standby: Subject) -> None:
    standby.find({103}, 110, None, set(), None)
    assert standby.next_step() == Ask((103,), 110)
    assert not standby.in_midst


def test_what_a_standby_said_does_not_hold_for_another(standby: Subject) -> None:
    standby.find({103, 107}, 110, newest(105), set(), 1090)
    standby.on_page(1090, True)
    standby.on_session(BIRTH, 1)
    assert standby.next_step() == Ask((103,), None)
    standby.on_asked({103}, 110)
    standby.on_session(BIRTH, 1)
    assert standby.next_step() == Ask((103,), None), "and it has to be asked first"


def test_how_far_it_is_can_be_asked_of_a_standby_at_once(standby: Subject) -> None:
    standby.on_many()
    assert standby.next_step() == Ask((), None)
    standby.on_asked([103], 110)
    standby.on_found(newest(105), [], 1090)
    standby.on_passed_over()
    assert standby.covered == Covered(106, (103,))


# -- in the midst of a batch, on another server


MIDST = Position(BIRTH, STREAM, 1, Covered(101, (90, 95)), newest(109).anchor, Covered(110, (95, 107)), 1030)


def test_a_standby_that_has_not_got_as_far_as_the_batch_is_asked_until_it_has() -> None:
    standby = Subject(MIDST, standby=True)
    assert standby.next_step() == Ask((90, 95), None)
    assert (standby.in_midst, standby.behind) == (True, False), "not asked yet"
    standby.on_asked({95, 105, 107}, 111)
    assert (standby.in_midst, standby.behind) == (True, True), "105 has entries that have been delivered, and others"
    assert standby.next_step() == Ask((90, 95, 105, 107), 111)
    standby.on_asked({95, 107, 112}, 113)
    assert (standby.in_midst, standby.behind) == (True, False)
    assert standby.next_step() == Page(MIDST.covered, Covered(110, (95, 107)), 1030, HIGHEST)
    standby.on_page(1090, True)
    assert standby.next_step() == Ask((95, 107, 112), 113)


@pytest.mark.parametrize(
    ("running", "xmax", "behind"),
    [
        (set(), 110, False),
        (set(), 109, True),
        ({90}, 120, True),
        ({95, 107}, 120, False),
        ({100}, 120, False),
        ({101}, 120, True),
        ({109}, 120, True),
        ({110}, 120, False),
    ],
)
def test_it_has_got_as_far_if_all_that_the_batch_consists_of_has_ended(
    running: set[int], xmax: int, behind: bool
) -> None:
    standby = Subject(MIDST, standby=True)
    standby.on_asked(running, xmax)
    assert standby.behind is behind


def test_a_batch_that_was_found_here_needs_no_question(standby: Subject) -> None:
    standby.find({103}, 110, newest(105), set(), 1090)
    standby.on_page(1030, False)
    assert isinstance(standby.next_step(), Page)
    standby.on_session(BIRTH, 1)
    assert isinstance(standby.next_step(), Ask), "but here"


def test_a_primary_with_the_same_timeline_needs_none_and_one_that_was_a_standby_does() -> None:
    reading = Subject(MIDST)
    assert isinstance(reading.next_step(), Page)
    reading.on_session(BIRTH, 2)
    assert reading.next_step() == Ask((90, 95), None)
    reading.on_asked({105}, 120)
    assert reading.behind, "it was prepared, and that it was committed is forgotten"
    reading.on_asked({107}, 120)
    assert isinstance(reading.next_step(), Page)
    reading.on_page(1090, True)
    assert isinstance(reading.next_step(), Look)


def test_a_question_that_is_answered_after_the_batch_was_passed_over_does_no_harm() -> None:
    standby = Subject(MIDST, standby=True)
    standby.on_passed_over()
    standby.on_asked({107}, 120)
    assert not standby.behind
    assert standby.next_step() == Find(Covered(110, (95, 107)), frozenset({107}), 120)


# -- sessions, and history


def test_a_new_session_of_the_same_history_changes_nothing_but_the_timeline(reading: Subject) -> None:
    reading.advance(100)
    before = reading.position
    assert reading.on_session(BIRTH, 2) is None
    assert reading.anchors == [newest(100)]
    assert reading.on_anchors([0]) is None
    assert reading.position == Position(BIRTH, STREAM, 2, before.covered, before.anchor)


def test_that_there_are_many_is_not_forgotten_when_a_session_is_lost(reading: Subject) -> None:
    reading.on_many()
    reading.on_session(BIRTH, 1)
    assert isinstance(reading.next_step(), Measure), "who begins at the end wants none of them"


def test_a_position_of_before_a_dump_was_restored_begins_again_at_the_oldest_entry(reading: Subject) -> None:
    reading.advance(100)
    reading.measure("120:120:", newest(110), 1100)
    assert reading.on_session(ANOTHER, 3) is GapReason.RESTORED
    assert reading.position == Position(ANOTHER, STREAM, 3)
    assert reading.anchors == []
    assert reading.on_anchors([]) is None
    assert reading.next_step() == Look(Covered())
    assert Reading(STREAM, reading.position).on_session(ANOTHER, 3) is None, "told once"


def test_a_reader_that_has_no_position_was_not_restored() -> None:
    reading = Reading(STREAM)
    assert reading.on_session(ANOTHER, 1) is None
    assert reading.on_session(ANOTHER, 1) is None
    assert reading.on_session(BIRTH, 1) is GapReason.RESTORED


def test_a_reader_that_has_seen_no_entry_has_nothing_that_could_be_missing(reading: Subject) -> None:
    reading.look("100:110:100", None, None)
    assert reading.anchors == []
    assert reading.on_anchors([]) is None


def test_if_its_newest_entry_is_gone_it_goes_on_at_the_newest_that_both_histories_share(reading: Subject) -> None:
    for xid in (100, 110, 120, 130):
        reading.advance(xid)
    reading.on_session(BIRTH, 2)
    assert reading.anchors == [newest(xid) for xid in (130, 120, 110, 100)]
    assert reading.on_anchors([2, 3]) is GapReason.REWOUND
    assert reading.position == Position(BIRTH, STREAM, 2, Covered(111), newest(110).anchor)
    assert reading.anchors == [newest(110), newest(100)]
    reading.advance(115)
    assert reading.anchors == [newest(115), newest(110), newest(100)]
    assert reading.on_anchors([2]) is GapReason.REWOUND
    assert reading.position.anchor == newest(100).anchor
    assert reading.anchors == [newest(100)]


def test_if_nothing_is_left_of_what_it_knows_it_begins_at_the_oldest_entry(reading: Subject) -> None:
    for xid in (100, 110):
        reading.advance(xid)
    assert reading.on_anchors([]) is GapReason.REWOUND
    assert reading.position == Position(BIRTH, STREAM, 1)
    assert reading.anchors == []


def test_the_anchor_in_the_midst_of_a_batch_is_the_newest_entry_of_the_batch(reading: Subject) -> None:
    reading.advance(100)
    reading.measure("120:120:", newest(110), 1100)
    reading.on_page(1050, False)
    assert reading.anchors == [newest(110), newest(100)]
    assert reading.on_anchors([1]) is GapReason.REWOUND
    assert reading.position == Position(BIRTH, STREAM, 1, Covered(101), newest(100).anchor)
    assert reading.next_step() == Look(Covered(101))


def test_who_resumed_in_the_midst_knows_only_that_anchor() -> None:
    reading = Subject(MIDST)
    assert reading.anchors == [newest(109)]
    assert reading.on_anchors([]) is GapReason.REWOUND
    assert reading.position == Position(BIRTH, STREAM, 1)
    assert reading.next_step() == Look(Covered())


def test_an_anchor_older_than_the_end_of_the_batch_is_the_one_from_before_it() -> None:
    reading = Subject()
    reading.look("103:110:103", newest(105), 1050)
    batch = reading.look("110:110:", None, 1030)
    assert batch is not None
    assert resumed(batch.position(1020)).anchors == [newest(105)]


def test_of_the_past_it_remembers_the_recent_and_fewer_of_the_old(reading: Subject) -> None:
    sizes = []
    for xid in range(100, 1100):
        reading.advance(xid)
        sizes.append(len(reading.anchors))
    assert max(sizes) <= PAST + 1
    xids = [one.xid for one in reading.anchors]
    assert xids == sorted(set(xids), reverse=True)
    assert xids[: PAST // 2] == list(range(1099, 1099 - PAST // 2, -1))
    assert xids[-1] < 1000, "a failover may lose much"
    common = len(xids) - 3
    reading.on_anchors(range(common, len(xids)))
    assert reading.covered == Covered(xids[common] + 1)
    assert [one.xid for one in reading.anchors] == xids[common:]


# -- witnesses


def test_an_entry_that_was_delivered_last_is_to_be_there_too(reading: Subject) -> None:
    batch = reading.look("110:110:105", newest(108), 1080)
    assert batch is not None
    reading.on_delivered([newest(104), newest(108), newest(104, 1050)])
    assert reading.witnesses == [newest(104, 1050), newest(108)], "one of each transaction"
    reading.advance(112)
    assert reading.on_anchors([0, 1]) is None
    assert reading.on_anchors([0, 1], witnesses=False) is GapReason.REWOUND
    assert reading.covered == Covered(109, (105,))
    assert not reading.witnesses


def test_the_position_of_an_entry_has_it_as_witness_unless_it_is_the_anchor(reading: Subject) -> None:
    batch = reading.look("110:110:", newest(108), 1080)
    assert batch is not None
    appended_at = datetime(2026, 1, 1, tzinfo=UTC)
    expected = Newest(104, Anchor(1040, int(appended_at.timestamp()) * 1_000_000))
    position = batch.position(1040, 104, appended_at)
    assert position.witness == expected
    assert Position.decode(position.encode(), STREAM) == position
    assert resumed(position).witnesses == (expected,)
    assert batch.position(1080, 108, appended_at).witness is None
    assert batch.position(1039).witness is None
    other = resumed(replace(batch.after, witness=expected))
    assert Position.decode(other.position.encode(), STREAM).witness == expected
    other.advance(112)
    other.on_delivered([newest(112)])
    assert other.position.witness is None


# -- retention


def removed(newest: Newest, *others: tuple[int, int]) -> Trimmed:
    listed = ((newest.xid, newest.anchor.id), *others)
    return Trimmed(len(listed), max(id for _, id in listed), False, newest, listed)


def test_who_had_not_got_what_was_removed_is_told_once_and_goes_on_with_what_is_left(reading: Subject) -> None:
    reading.advance(100)
    trimmed = removed(newest(103))
    assert reading.on_trimmed(trimmed) is GapReason.TRIMMED
    assert reading.position == Position(BIRTH, STREAM, 1, Covered(101), newest(100).anchor)
    known = [reading.trimmed]
    reading.on_session(BIRTH, 1)
    assert [*known, reading.trimmed] == [trimmed, None]
    assert reading.on_trimmed(trimmed) is None
    assert reading.look("110:110:", newest(105), 1050) is not None
    assert reading.covered == Covered(106)
    assert reading.on_trimmed(removed(newest(105))) is None


def test_if_nothing_is_left_it_stands_behind_what_was_removed(reading: Subject) -> None:
    reading.advance(100)
    reading.on_trimmed(removed(newest(103)))
    assert reading.look("110:110:107", None, None) is None
    assert reading.position == Position(BIRTH, STREAM, 1, Covered(104), newest(103).anchor)
    assert resumed(reading.position).on_trimmed(removed(newest(103))) is None


def test_or_if_the_newest_is_older_than_that(reading: Subject) -> None:
    """It was committed later, and has a higher id."""
    reading.look("110:110:", None, None)
    assert reading.on_trimmed(removed(newest(103))) is GapReason.TRIMMED
    assert reading.look("110:110:", newest(102, 1040), 1040) is not None
    assert reading.position == Position(BIRTH, STREAM, 1, Covered(104), newest(103).anchor)


def test_who_begins_at_the_end_stands_there_too(reading: Subject) -> None:
    reading.on_many()
    reading.next_step()
    assert reading.on_trimmed(removed(newest(103))) is None
    reading.on_measured(Snapshot.parse("110:110:"), None, None)
    assert not reading.in_midst
    assert reading.position == Position(BIRTH, STREAM, 1, Covered(104), newest(103).anchor)


def test_on_a_standby_what_was_removed_had_ended_though_it_ran_when_that_was_asked(standby: Subject) -> None:
    standby.on_trimmed(removed(newest(103)))
    standby.find({101, 104}, 110, newest(105), set(), 1050)
    assert standby.position.target == Covered(106, (104,))


def test_a_position_says_that_its_reader_has_begun_though_there_was_nothing(reading: Subject) -> None:
    reading.look("110:110:", None, None)
    assert resumed(reading.position).on_trimmed(removed(newest(120))) is GapReason.TRIMMED
    assert Subject().on_trimmed(removed(newest(120))) is None


def test_an_anchor_that_was_removed_is_not_rewritten_history(reading: Subject) -> None:
    reading.advance(100)
    reading.advance(101)
    assert reading.passed(reading.anchors, None) == ()
    assert reading.passed(reading.anchors, removed(newest(100))) == {1}
    assert reading.passed(reading.anchors, removed(newest(103))) == {0, 1}
    reading.on_session(BIRTH, 1)
    assert reading.on_anchors({0, 1}) is None


def test_after_a_failover_only_the_newest_that_was_removed_is_known(reading: Subject) -> None:
    reading.advance(100)
    reading.advance(101)
    reading.on_session(BIRTH, 2)
    assert reading.passed(reading.anchors, removed(newest(103))) == set()
    assert reading.passed(reading.anchors, removed(newest(101))) == {0}
    reading.on_session(BIRTH, 2)  # the answer was lost
    assert reading.passed(reading.anchors, removed(newest(103))) == set()
    reading.on_anchors({0})
    assert reading.passed(reading.anchors, removed(newest(103))) == {0, 1}


def test_what_a_standby_said_has_no_timeline(reading: Subject) -> None:
    reading.advance(100)
    reading.on_session(BIRTH, 0)
    assert reading.passed(reading.anchors, removed(newest(103))) == {0}
    reading.on_anchors({0})
    reading.on_session(BIRTH, 2)  # it was the old one's
    assert reading.passed(reading.anchors, removed(newest(103))) == set()


def test_where_a_rewound_reader_goes_on_it_may_have_missed_something(reading: Subject) -> None:
    reading.advance(100)
    reading.advance(105)
    trimmed = removed(newest(103))
    assert reading.on_trimmed(trimmed) is None
    assert reading.on_anchors({1}) is GapReason.REWOUND
    assert reading.on_trimmed(trimmed) is GapReason.TRIMMED
