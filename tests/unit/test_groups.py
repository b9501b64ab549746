"""What a member of a group hands out next and writes down, rule by rule. `tests/sim` has all of them at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from uuid import UUID

import pytest

from pgpubsub.core import groups
from pgpubsub.core.groups import MANY, Share
from pgpubsub.core.position import Covered, Position
from pgpubsub.core.reading import Batch
from pgpubsub.core.slots import SLOTS, UNSEEN, Item, Lane, Parked, Place, SlotState, Started, Write, quota

XID = 100
"""The transaction of all entries for which it does not matter."""

BEFORE, AFTER = Covered(XID), Covered(XID + 1)


def batch_of(start: Covered, target: Covered, *, last: int | None, done: bool = True) -> Batch:
    """What `Reading` says of a batch: all of `target`, or of a page of it that is not the last."""
    position = Position(UUID(int=1), 5, 1)
    within = replace(position, covered=start, target=target)
    if done:
        return Batch(within, replace(position, covered=target), last)
    assert last is not None
    return Batch(within, replace(within, last=last), last)


def entry(id: int, key: str | None = None, *, slot: int = 1, xid: int = XID) -> Item:
    return Item(id, slot, key, f"entry {id}", xid)


def parked(id: int, key: str | None = None, *, slot: int = 1, attempts: int = 1, together: int = 1) -> Item:
    """One that comes from among the parked ones."""
    return Item(id, slot, key, f"entry {id}", 0, attempts, together, parked=True)


def sized(item: Item, size: int) -> Item:
    return replace(item, size=size)


def ids(items: Iterable[Item]) -> list[int]:
    return [item.id for item in items]


class Subject(Share):
    """A share of slot 1, unless others are named, with short ways to report."""

    def __init__(self, *slots: int, attempts: int = 3, blocked: Sequence[str] = (), batch: int = 1) -> None:
        super().__init__(attempts, lambda attempt: attempt * 10.0, batch)
        for number in slots or (1,):
            self.on_taken(number, Place(BEFORE), blocked)

    def read(self, *items: Item, done: bool = True, target: Covered = AFTER) -> None:
        """These are the next entries of the one lane that there is, in a batch or on a page of one."""
        [lane] = self.lanes()
        self.on_read(lane, items, batch_of(lane.start.covered, target, last=items[-1].id, done=done))

    def begin(self, count: int = 1) -> list[Item]:
        """Start some, and write that down."""
        items = self.start(count)
        self.write()
        return items

    def write(self, waiting: Collection[str] = ()) -> Write:
        """Write down what there is, and hear of which keys some are waiting."""
        write = self.plan_write()
        assert write is not None
        self.on_written(write, waiting)
        return write

    def slot(self, number: int = 1) -> SlotState:
        """What is written down of a slot."""
        [state] = [state for state in self.write().slots if state.number == number]
        return state


@pytest.fixture
def share() -> Subject:
    return Subject()


# -- how many slots


@pytest.mark.parametrize("count", range(1, SLOTS + 3))
def test_members_have_about_as_many_slots_each_and_all_of_them_together(count: int) -> None:
    members = [f"member {number}" for number in range(count)]
    quotas = [quota(members, member) for member in members]
    assert sum(quotas) == SLOTS
    assert max(quotas) - min(quotas) <= 1


# -- where a slot stands


def test_a_place_is_behind_what_is_covered_and_what_of_its_target_has_an_id_up_to_the_last() -> None:
    place = Place(Covered(10, (7,)), Covered(20, (15,)), 500)
    assert place.covers(9, 900)
    assert place.covers(12, 500)
    assert place.covers(7, 500), "which was open, and is in the target"
    assert not place.covers(12, 501)
    assert not place.covers(15, 400), "which is open in the target too"
    assert not place.covers(20, 400)


def test_a_place_without_a_target_is_behind_what_is_covered_whatever_its_id() -> None:
    assert Place(Covered(10)).covers(9, 900)
    assert not Place(Covered(10)).covers(10, 1)


def test_a_slot_stands_before_what_was_read_but_not_looked_at(share: Subject) -> None:
    share.read(entry(7), entry(9))
    assert share.slots == {1: Place(BEFORE, AFTER, 6)}
    share.start(1)
    assert share.slots == {1: Place(BEFORE, AFTER, 8)}
    share.start(1)
    assert share.slots == {1: Place(AFTER)}


# -- reading


def test_slots_that_are_not_in_the_midst_of_a_batch_are_read_together_from_what_all_of_them_cover() -> None:
    share = Subject()
    share.on_taken(2, Place(Covered(90, (80,))))
    share.on_taken(3, Place(Covered(110, (85, 95))))
    assert share.lanes() == [Lane(Place(Covered(90, (80, 85))), (1, 2, 3))]


def test_slots_in_the_midst_of_the_same_target_are_read_together_from_the_least_of_their_ids() -> None:
    share = Subject()
    share.on_taken(2, Place(Covered(90), AFTER, 700))
    share.on_taken(3, Place(BEFORE, AFTER, 600))
    share.on_taken(4, Place(BEFORE, Covered(200), 500))
    assert share.lanes() == [
        Lane(Place(BEFORE), (1,)),
        Lane(Place(Covered(90), AFTER, 600), (2, 3)),
        Lane(Place(BEFORE, Covered(200), 500), (4,)),
    ]


def test_slots_that_nobody_has_looked_at_are_read_apart_from_others() -> None:
    share = Share(3, lambda attempt: 10.0)
    share.on_taken(1, UNSEEN)
    share.on_taken(2, Place(BEFORE))
    share.on_taken(3, UNSEEN)
    assert sorted((lane.start, lane.slots) for lane in share.lanes()) == [(UNSEEN, (1, 3)), (Place(BEFORE), (2,))]


def test_the_first_look_is_written_down_whatever_it_finds() -> None:
    share = Share(3, lambda attempt: 10.0)
    share.on_taken(1, UNSEEN)
    share.on_taken(2, Place(BEFORE))
    for lane in share.lanes():
        share.on_read(lane, [], batch_of(lane.start.covered, AFTER, last=None))
    write = share.plan_write()
    assert write is not None
    assert write.slots == [SlotState(1, Place(AFTER), [], [], True)]
    [lane] = share.lanes()
    share.on_read(lane, [], batch_of(AFTER, Covered(200), last=None))
    assert share.plan_write() is None


def test_a_slot_that_is_being_left_is_not_read() -> None:
    share = Subject(1, 2)
    share.leave(1)
    assert [lane.slots for lane in share.lanes()] == [(2,)]
    assert share.slots == {2: Place(BEFORE)}


def test_what_a_slot_had_covered_already_is_dropped() -> None:
    share = Subject()
    share.on_taken(2, Place(Covered(XID - 5)))
    share.read(entry(1, xid=XID - 3), entry(2, xid=XID - 3, slot=2), entry(3))
    assert ids(share.start(9)) == [2, 3]


def test_what_was_read_on_an_earlier_page_is_dropped() -> None:
    share = Subject()
    share.on_taken(2, Place(BEFORE, AFTER, 5))
    share.on_taken(3, Place(BEFORE, AFTER, 8))
    _, lane = share.lanes()
    page = [entry(6, slot=2), entry(7, slot=3), entry(8, slot=2), entry(9, slot=3)]
    share.on_read(lane, page, batch_of(BEFORE, AFTER, last=9, done=False))
    assert ids(share.start(9)) == [6, 8, 9]


def test_a_page_brings_all_slots_of_its_lane_further_also_those_without_an_entry_on_it() -> None:
    share = Subject(1, 2)
    share.read(entry(4), done=False)
    share.start(1)
    assert share.slots == {1: Place(BEFORE, AFTER, 4), 2: Place(BEFORE, AFTER, 4)}
    share.read(entry(6, slot=2), done=False)
    share.start(1)
    assert share.slots == {1: Place(BEFORE, AFTER, 6), 2: Place(BEFORE, AFTER, 6)}


def test_a_page_does_not_bring_a_slot_back_that_is_further() -> None:
    share = Subject()
    share.on_taken(2, Place(BEFORE, AFTER, 5))
    share.on_taken(3, Place(BEFORE, AFTER, 8))
    _, lane = share.lanes()
    share.on_read(lane, [], batch_of(BEFORE, AFTER, last=6, done=False))
    assert share.slots == {1: Place(BEFORE), 2: Place(BEFORE, AFTER, 6), 3: Place(BEFORE, AFTER, 8)}


def test_the_last_page_brings_all_slots_of_its_lane_to_the_end_of_the_batch_and_no_others() -> None:
    share = Subject(1, 2)
    [lane] = share.lanes()
    share.on_taken(3, Place(BEFORE))
    share.on_read(lane, [], batch_of(BEFORE, AFTER, last=None))
    assert share.slots == {1: Place(AFTER), 2: Place(AFTER), 3: Place(BEFORE)}


def test_a_look_that_finds_nothing_brings_slots_further_too(share: Subject) -> None:
    [lane] = share.lanes()
    nowhere = replace(Position(UUID(int=1), 5, 1), covered=AFTER)
    share.on_read(lane, [], Batch(nowhere, nowhere, None))
    assert share.slots == {1: Place(AFTER)}


def test_each_slot_remembers_what_itself_had_covered_when_an_entry_was_read() -> None:
    share = Subject()
    share.on_taken(2, Place(Covered(90)))
    share.read(entry(3), entry(4, slot=2))
    assert share.slots == {1: Place(BEFORE, AFTER, 2), 2: Place(Covered(90), AFTER, 3)}


def test_an_entry_of_a_later_batch_stands_where_the_earlier_one_has_ended(share: Subject) -> None:
    share.read(entry(3))
    [lane] = share.lanes()
    share.on_read(lane, [entry(2, xid=XID + 1)], batch_of(AFTER, Covered(XID + 2), last=2))
    share.start(1)
    assert share.slots == {1: Place(AFTER, Covered(XID + 2), 1)}


def test_it_tells_how_many_entries_wait_to_be_looked_at(share: Subject) -> None:
    share.read(entry(1), entry(2), entry(3))
    assert share.waiting == 3
    share.start(2)
    assert share.waiting == 1


# -- what to hand out


def test_entries_are_handed_out_in_the_order_in_which_they_were_read(share: Subject) -> None:
    share.read(entry(1), entry(2), entry(3), entry(4))
    assert [ids(share.start(1)), ids(share.start(2)), ids(share.start(9)), ids(share.start(1))] == [
        [1],
        [2, 3],
        [4],
        [],
    ]


def test_an_entry_counts_how_often_it_was_handed_out_this_time_included(share: Subject) -> None:
    share.read(entry(1))
    [item] = share.begin()
    assert item.attempts == 1
    share.on_due([parked(7, attempts=1)])
    [item] = share.begin()
    assert item.attempts == 2


def test_of_a_key_one_is_in_flight_at_a_time_and_others_go_past_it(share: Subject) -> None:
    share.read(entry(1, "a"), entry(2, "a"), entry(3, "b"), entry(4))
    assert [ids(share.start(1)) for _ in range(4)] == [[1], [3], [4], []]


def test_entries_without_a_key_do_not_wait_for_each_other(share: Subject) -> None:
    share.read(entry(1), entry(2))
    assert [ids(share.start(1)) for _ in range(2)] == [[1], [2]]


def test_a_batch_may_have_several_of_a_key_in_order(share: Subject) -> None:
    share.read(entry(1, "a"), entry(2, "b"), entry(3, "a"), entry(4, "a"))
    first = share.start(3)
    assert ids(first) == [1, 2, 3]
    assert share.start(3) == []
    share.acknowledge(first)
    assert ids(share.start(3)) == [4]


def test_where_many_are_to_come_those_of_a_slot_are_handed_out_together_in_order() -> None:
    share = Subject(1, 2, batch=2)
    share.read(entry(1, slot=2), entry(2, slot=1), entry(3, slot=2), entry(4, slot=1))
    assert [ids(share.begin(2)) for _ in range(2)] == [[2, 4], [1, 3]]


def test_where_few_are_to_come_they_are_handed_out_in_the_order_of_the_stream() -> None:
    share = Subject(1, 2, batch=4)
    share.read(entry(1, slot=2), entry(2, slot=1), entry(3, slot=2), entry(4, slot=1))
    assert ids(share.begin(4)) == [1, 2, 3, 4]


def test_a_batch_is_in_order_also_when_its_slots_were_not_read_in_order() -> None:
    share = Subject(1, 2, batch=3)
    share.read(entry(1, slot=2), entry(2, slot=1), entry(3, slot=2), entry(4, slot=1))
    assert ids(share.begin(3)) == [1, 2, 4]


def test_a_slot_whose_entries_wait_behind_those_of_another_stands_before_them() -> None:
    share = Subject(1, 2, batch=2)
    share.read(entry(1, slot=2), entry(2, slot=1), entry(3, slot=2), entry(4, slot=1))
    share.begin(2)
    assert share.slots == {1: Place(AFTER), 2: Place(BEFORE, AFTER, 0)}


def test_a_key_is_free_when_the_last_of_it_in_a_batch_is_settled(share: Subject) -> None:
    share.read(entry(1, "a"), entry(2, "a"), entry(3, "a"))
    first, second = share.start(2)
    assert share.start(1) == []
    share.acknowledge([first])
    assert share.start(1) == []
    share.acknowledge([second])
    assert ids(share.start(1)) == [3]


def test_what_was_held_goes_on_in_order_and_before_what_was_not_looked_at(share: Subject) -> None:
    share.read(entry(1, "a"), entry(2, "a"), entry(3, "a"), entry(4))
    [first] = share.start(1)
    [fourth] = share.start(1)
    assert (first.id, fourth.id) == (1, 4)
    share.acknowledge([first])
    [lane] = share.lanes()
    share.on_read(lane, [entry(5, xid=XID + 1)], batch_of(AFTER, Covered(XID + 2), last=5))
    assert [ids(share.start(1)) for _ in range(3)] == [[2], [5], []]
    share.acknowledge([entry(2, "a")])
    assert ids(share.start(1)) == [3]


def test_no_more_of_a_key_are_held_than_a_limit_and_others_go_past_them(
    share: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "LANE", 2)
    share.read(*[entry(id, "a") for id in (1, 2, 3, 4, 5)], entry(6, "b"))
    assert ids(share.start(1)) == [1]
    assert ids(share.start(1)) == [6]
    write = share.write(["a"])
    assert write.slots == [SlotState(1, Place(AFTER), [1, 6], [2, 3], True)]
    assert write.parked == [Parked(4, 0, MANY), Parked(5, 0, MANY)]
    assert write.keys == {"a"}
    assert not write.durable


def test_no_more_of_a_key_are_held_than_a_limit_of_bytes(share: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "LONG", 100)
    share.read(*[sized(entry(id, "a"), 60) for id in (1, 2, 3, 4)])
    assert share.waiting_bytes == 240
    assert ids(share.start(2)) == [1, 2]
    assert share.waiting_bytes == 120
    share.read(*[sized(entry(id, "a", xid=XID + 1), 60) for id in (5, 6)], target=Covered(XID + 2))
    assert share.start(1) == []
    assert share.waiting_bytes == 0
    write = share.write(["a"])
    assert write.slots == [SlotState(1, Place(Covered(XID + 2)), [1, 2], [3, 4], True)]
    assert ids_parked(write) == [5, 6]


def test_what_leaves_with_its_slot_has_no_bytes_here_any_more() -> None:
    share = Subject(1, 2)
    share.read(sized(entry(1, slot=1), 60), sized(entry(2, slot=2), 70))
    share.leave(1)
    assert share.waiting_bytes == sum(item.size for item in share.start(2))


def test_each_key_has_a_limit_of_its_own(share: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "LANE", 1)
    share.read(entry(1, "a"), entry(2, "b"), entry(3, "a"), entry(4, "b"))
    assert ids(share.start(2)) == [1, 2]
    assert share.start(1) == []
    assert share.slot() == SlotState(1, Place(AFTER), [1, 2], [3, 4], True)


def test_what_was_held_is_parked_before_what_was_beyond_the_limit(
    share: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "LANE", 1)
    share.read(entry(1, "a"), entry(2, "a"), entry(3, "a"))
    first = share.start(1)
    assert share.start(1) == []
    assert ids_parked(share.write(["a"])) == [3]
    share.on_due([parked(3, "a", attempts=0)])
    assert share.start(1) == [], "it is the first of those that are parked, but not of its key"
    share.acknowledge(first)
    assert share.due == 0
    assert share.start(1) == []
    write = share.write(["a"])
    assert write.parked == [Parked(2, 0, MANY)]
    assert write.slots == [SlotState(1, Place(AFTER), [], [], True)]
    share.on_due([parked(2, "a", attempts=0)])
    assert ids(share.start(1)) == [2]


def test_what_was_held_and_is_beyond_the_limit_when_it_is_looked_at_again_is_held_no_more(
    share: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    share.read(*[entry(id, "a") for id in (1, 2, 3, 4)])
    first = share.start(1)
    assert share.start(1) == []
    share.acknowledge(first)
    assert ids(share.start(1)) == [2]
    monkeypatch.setattr(groups, "LANE", 1)
    assert share.start(1) == []
    write = share.write(["a"])
    assert write.slots == [SlotState(1, Place(AFTER), [2], [3], True)]
    assert write.parked == [Parked(4, 0, MANY)]


def test_what_is_in_flight_and_what_is_held_are_the_exceptions_to_where_a_slot_stands(share: Subject) -> None:
    share.read(entry(1, "a"), entry(2, "b"), entry(3, "a"), entry(4))
    share.start(2)
    share.start(1)
    assert share.slot() == SlotState(1, Place(AFTER), [1, 2, 4], [3], True)


def test_entries_whose_key_is_blocked_are_parked_behind_those_that_block_it() -> None:
    share = Subject(blocked=["a"])
    share.read(entry(1, "a"), entry(2, "b"))
    assert ids(share.start(9)) == [2]
    write = share.write(["a"])
    assert write.parked == [Parked(1, 0, MANY)]
    assert write.keys == {"a"}
    assert write.slots == [SlotState(1, Place(AFTER), [2], [], True)]
    assert not write.durable


# -- parked entries


def test_what_is_due_goes_first_and_comes_back_later_should_nobody_say_more(share: Subject) -> None:
    share.read(entry(1))
    share.on_due([parked(7, "a", attempts=1), parked(8, "b", attempts=2)])
    assert ids(share.start(1)) == [7]
    assert share.write().started == [Started(7, 20.0, 1)]
    assert ids(share.start(1)) == [8]
    assert share.write().started == [Started(8, 30.0, 1)]
    assert ids(share.start(1)) == [1]


def test_due_entries_are_handed_out_with_no_more_than_each_of_them_bears(share: Subject) -> None:
    share.on_due([parked(1, together=3), parked(2, together=9), parked(3, together=2), parked(4), parked(5)])
    share.on_due([parked(6, together=0), parked(7, together=9)])
    assert [ids(share.start(9)) for _ in range(6)] == [[1, 2], [3], [4], [5], [6], [7]]


def test_due_entries_and_others_are_not_handed_out_together(share: Subject) -> None:
    share.on_due([parked(1, together=9)])
    share.read(entry(2))
    assert ids(share.start(9)) == [1]


def test_of_due_entries_of_a_key_one_waits_while_the_other_is_in_flight(share: Subject) -> None:
    share.on_due([parked(1, "a"), parked(2, "a"), parked(3, "b")])
    [first] = share.start(1)
    assert ids(share.start(1)) == [3]
    assert share.start(1) == []
    share.acknowledge([first])
    assert ids(share.start(1)) == [2]


def test_a_parked_batch_that_nobody_speaks_of_comes_again_in_tenths(share: Subject) -> None:
    share.on_due([parked(id, together=20) for id in range(1, 21)])
    share.start(20)
    assert {started.together for started in share.write().started} == {2}


def test_a_small_parked_batch_that_nobody_speaks_of_comes_again_alone(share: Subject) -> None:
    share.on_due([parked(1, together=5), parked(2, together=5)])
    share.start(5)
    assert share.write().started == [Started(1, 20.0, 1), Started(2, 20.0, 1)]


def test_what_is_due_blocks_its_key(share: Subject) -> None:
    share.on_due([parked(1, "a")])
    share.read(entry(2, "a"))
    share.begin()
    assert share.start(1) == []
    assert share.write(["a"]).parked == [Parked(2, 0, MANY)]


def test_it_tells_how_many_parked_entries_are_due_and_not_in_flight(share: Subject) -> None:
    share.on_due([parked(1), parked(2)])
    assert share.due == 2
    share.start(1)
    assert [share.due] == [1]


def test_those_that_wait_for_another_one_of_their_key_leave_room_for_others(share: Subject) -> None:
    share.on_due([parked(1, "a"), parked(2, "a"), parked(3, "a"), parked(4, "b"), parked(5)])
    assert share.due == 5
    items = share.start(1)
    assert share.due == 2
    assert sorted(share.known) == [1, 2, 3, 4, 5]
    share.acknowledge(items)
    assert share.due == 4


def test_it_tells_how_many_bytes_are_due_and_of_which_keys_in_flight_too_many(
    share: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "LONG", 100)
    lines = [parked(1, "a"), parked(2, "a"), parked(3, "a"), parked(4, "b"), parked(5, "b"), parked(6)]
    share.on_due([sized(item, 60) for item in lines])
    assert (share.due_bytes, share.long_lines) == (360, [])
    items = share.start(1)
    assert (share.due_bytes, share.long_lines) == (180, ["a"])
    share.start(1)
    assert (share.due_bytes, share.long_lines) == (60, ["a"])
    share.acknowledge(items)
    assert (share.due_bytes, share.long_lines) == (180, [])


def test_what_was_sent_again_is_not_handed_out_as_long_as_it_is_in_flight_as_a_fresh_one(share: Subject) -> None:
    """The group was set back, and read its dead letter again."""
    share.read(entry(1), entry(2))
    items = share.begin()
    share.on_due([parked(1, attempts=0)])
    assert (ids(items), share.due, share.due_bytes) == ([1], 0, 0)
    assert ids(share.start(1)) == [2]
    share.acknowledge(items)
    assert share.due == 1
    assert ids(share.start(1)) == [1]


def test_if_it_fails_meanwhile_it_waits_as_a_failed_one(share: Subject) -> None:
    share.read(entry(1))
    items = share.begin()
    share.on_due([parked(1, attempts=0)])
    share.fail(items, "no")
    assert share.start(1) == []
    assert share.write().parked == [Parked(1, 1, 1, 10.0, False, "no")]


def test_what_was_sent_again_is_not_handed_out_as_a_fresh_one_beside_that(share: Subject) -> None:
    share.read(*[entry(id) for id in (1, 2, 3)])
    share.on_due([parked(1, attempts=0), parked(2, attempts=0)])
    assert ids(share.start(1)) == [1]
    assert ids(share.start(2)) == [2]
    assert ids(share.start(1)) == [3]
    assert share.slot() == SlotState(1, Place(AFTER), [3], [], True)


def test_nothing_is_taken_twice_and_nothing_of_slots_that_are_not_its_own(share: Subject) -> None:
    share.on_due([parked(1), parked(2), parked(3, slot=9)])
    [first] = share.start(1)
    share.on_due([parked(1), parked(2)])
    assert sorted(share.known) == [1, 2]
    assert ids(share.start(1)) == [2]
    assert share.start(1) == []
    assert first.id == 1


@pytest.mark.parametrize("done", [True, False])
def test_what_is_read_of_a_parked_entry_before_its_end_is_written_down_is_too_old(share: Subject, done: bool) -> None:
    share.on_due([parked(1)])
    items = share.begin()
    if done:
        share.acknowledge(items)
    else:
        share.fail(items, "no")
    assert list(share.known) == [1]
    share.on_due([parked(1)])
    assert share.start(1) == []
    share.write()
    assert list(share.known) == []
    share.on_due([parked(1)])
    assert ids(share.start(1)) == [1]


def test_what_was_in_hand_alone_at_its_last_attempt_and_is_due_again_is_set_aside() -> None:
    share = Subject(attempts=2)
    share.on_due([parked(1, "a", attempts=2, together=0)])
    assert share.start(1) == []
    write = share.write()
    assert write.parked == [Parked(1, 2, dead=True, error="the member that had it ended, or lost its lease")]
    assert write.keys == {"a"}
    assert write.durable


@pytest.mark.parametrize(("attempts", "together"), [(2, -1), (5, -3), (2, 1), (1, 0)])
def test_what_was_not_in_hand_alone_or_not_often_enough_gets_another_attempt(attempts: int, together: int) -> None:
    share = Subject(attempts=2)
    share.on_due([parked(1, attempts=attempts, together=together)])
    assert ids(share.start(9)) == [1]


# -- those that may have killed their member


def test_what_has_had_all_its_attempts_comes_once_more_with_nothing_else_in_hand() -> None:
    share = Subject(attempts=2)
    share.read(entry(1), entry(2))
    share.on_due([parked(7, attempts=2, together=-9), parked(8, attempts=1, together=9)])
    [item] = share.start(9)
    assert (item.id, item.attempts) == (7, 3)
    assert share.write().started == [Started(7, 30.0, 1)]
    assert share.start(9) == []
    share.acknowledge([item])
    assert ids(share.start(9)) == [8]
    assert ids(share.start(9)) == [1, 2]


def test_what_has_failed_and_ended_no_member_keeps_nobody_waiting() -> None:
    share = Subject(attempts=2)
    share.read(entry(1))
    share.on_due(
        [parked(7, attempts=2), parked(8, attempts=2), parked(9, attempts=1, together=-2), parked(10, together=2)]
    )
    assert ids(share.begin()) == [7]
    assert ids(share.begin()) == [8]
    assert ids(share.begin(9)) == [9, 10]
    assert ids(share.begin()) == [1]


def test_what_has_had_all_its_attempts_comes_alone_however_many_it_may_be_with() -> None:
    share = Subject(attempts=2)
    share.on_due([parked(1, attempts=2, together=9), parked(2, attempts=2, together=9), parked(3, together=9)])
    assert [ids(share.begin(9)) for _ in range(3)] == [[1], [2], [3]]


def test_it_goes_before_others_that_were_due_earlier() -> None:
    share = Subject(attempts=2)
    share.on_due([parked(1, attempts=1), parked(2, "a", attempts=2, together=-1), parked(3, attempts=1)])
    assert ids(share.begin()) == [2]


def test_it_waits_for_what_is_in_flight_and_nothing_else_is_started_meanwhile() -> None:
    share = Subject(attempts=2)
    share.read(entry(1), entry(2), entry(3))
    share.on_due([parked(6, attempts=1)])
    sixth, first, second = share.begin(), share.begin(), share.begin()
    share.on_due([parked(7, attempts=2, together=-1), parked(8, attempts=1)])
    assert share.start(1) == []
    share.acknowledge(first)
    share.fail(second, "no")
    assert share.start(1) == []
    share.acknowledge(sixth)
    assert ids(share.begin()) == [7]
    assert share.start(1) == []


def test_those_that_may_have_done_it_come_one_at_a_time() -> None:
    share = Subject(attempts=1)
    share.on_due([parked(id, attempts=1, together=-1) for id in (1, 2, 3)])
    for id in (1, 2, 3):
        items = share.begin()
        assert ids(items) == [id]
        assert share.start(1) == []
        share.acknowledge(items)
    assert share.start(1) == []


def test_others_go_on_when_it_has_failed_and_is_set_aside() -> None:
    share = Subject(attempts=2)
    share.read(entry(1))
    share.on_due([parked(7, attempts=2, together=-1)])
    items = share.begin()
    assert share.start(1) == []
    share.fail(items, "no")
    assert ids(share.start(1)) == [1]
    assert share.write().parked == [Parked(7, 3, 1, None, True, "no")]


def test_others_go_on_when_it_is_given_back() -> None:
    share = Subject(attempts=2)
    share.read(entry(1))
    share.on_due([parked(7, attempts=2, together=-1)])
    share.give_back(share.begin())
    assert ids(share.start(1)) == [1]
    assert share.write().parked == [Parked(7, 2, -1, 0.0)]


def test_others_go_on_when_it_was_in_a_slot_that_is_being_left() -> None:
    share = Subject(1, 2, attempts=2)
    share.read(entry(1, slot=2), entry(2, slot=2))
    first = share.begin()
    share.on_due([parked(7, slot=1, attempts=2, together=-1)])
    assert share.start(1) == []
    share.leave(1)
    assert ids(share.start(1)) == [2]
    assert ids(first) == [1]


# -- what became of it


def test_what_is_acknowledged_is_in_flight_no_more_and_must_not_be_forgotten(share: Subject) -> None:
    share.read(entry(1))
    share.acknowledge(share.begin())
    write = share.write()
    assert write.slots == [SlotState(1, Place(AFTER), [], [], True)]
    assert write.durable
    assert write.noted == []
    assert write.done == []
    assert not write.keys


def test_what_a_transaction_has_acknowledged_already_may_be_noted_later(share: Subject) -> None:
    share.read(entry(1))
    share.acknowledge(share.begin(), noted=77)
    write = share.write()
    assert write.noted == [77]
    assert write.slots == [SlotState(1, Place(AFTER), [], [], True)]
    assert not write.durable


def test_a_parked_entry_that_is_acknowledged_is_removed_and_its_key_concerned(share: Subject) -> None:
    share.on_due([parked(1, "a"), parked(2)])
    share.acknowledge([*share.begin(), *share.begin()])
    write = share.write()
    assert write.done == [1, 2]
    assert write.keys == {"a"}
    assert write.slots == []


def test_an_entry_that_failed_is_parked_until_its_next_attempt_and_that_must_not_be_forgotten(share: Subject) -> None:
    share.read(entry(1))
    share.fail(share.begin(), "no")
    write = share.write()
    assert write.parked == [Parked(1, 1, 1, 10.0, False, "no")]
    assert write.slots == [SlotState(1, Place(AFTER), [], [], True)]
    assert write.durable
    assert not write.keys


def test_an_entry_that_failed_blocks_its_key_and_what_was_held_is_parked_behind_it(share: Subject) -> None:
    share.read(entry(1, "a"), entry(2, "a"), entry(3, "b"))
    [first] = share.start(1)
    [third] = share.start(1)
    share.fail([first], "no")
    write = share.write(["a"])
    assert write.parked == [Parked(1, 1, 1, 10.0, False, "no"), Parked(2, 0, MANY)]
    assert write.keys == {"a"}
    assert write.slots == [SlotState(1, Place(AFTER), [third.id], [], True)]


def test_a_parked_entry_that_failed_waits_longer(share: Subject) -> None:
    share.on_due([parked(1, "a", attempts=1)])
    share.fail(share.begin(), "no")
    write = share.write(["a"])
    assert write.parked == [Parked(1, 2, 1, 20.0, False, "no")]
    assert write.slots == [SlotState(1, Place(BEFORE), [], [], True)]


def test_an_entry_that_failed_alone_after_all_its_attempts_is_set_aside(share: Subject) -> None:
    share.on_due([parked(1, "a", attempts=2)])
    share.fail(share.begin(), "no")
    assert share.write().parked == [Parked(1, 3, 1, None, True, "no")]


def test_what_was_held_behind_an_entry_that_is_set_aside_at_once_goes_on() -> None:
    share = Subject(attempts=1)
    share.read(entry(1, "a"), entry(2, "a"))
    [first] = share.start(1)
    assert share.start(1) == []
    share.fail([first], "no")
    assert ids(share.start(1)) == [2]


def test_a_batch_that_failed_comes_again_by_tenths_and_at_once(share: Subject) -> None:
    share.read(*[entry(id, f"key {id}") for id in range(1, 31)])
    share.fail(share.begin(30), "no")
    assert share.write().parked == [Parked(id, 1, 3, 0.0, False, "no") for id in range(1, 31)]


def test_a_small_batch_that_failed_comes_again_one_by_one(share: Subject) -> None:
    share.read(entry(1), entry(2))
    share.fail(share.begin(2), "no")
    assert share.write().parked == [Parked(1, 1, 1, 0.0, False, "no"), Parked(2, 1, 1, 0.0, False, "no")]


def test_nothing_is_set_aside_with_a_batch() -> None:
    share = Subject(attempts=1)
    share.read(entry(1), entry(2))
    share.fail(share.begin(2), "no")
    assert not any(one.dead for one in share.write().parked)


def test_of_a_key_that_a_failed_batch_had_several_of_the_later_ones_wait_for_the_first(share: Subject) -> None:
    share.read(entry(1, "a"), entry(2), entry(3, "a"), entry(4), entry(5, "a"))
    items = share.begin(4)
    assert share.start(1) == []
    share.fail(items, "no")
    assert [(one.id, one.delay) for one in share.write(["a"]).parked] == [
        (1, 0.0),
        (2, 0.0),
        (3, None),
        (4, 0.0),
        (5, None),
    ]


def test_what_is_given_back_was_no_attempt_and_is_held(share: Subject) -> None:
    share.read(entry(1, "a"))
    items = share.begin()
    share.give_back(items)
    assert items[0].attempts == 0
    assert share.slot() == SlotState(1, Place(AFTER), [], [1], True)


def test_a_parked_entry_that_is_given_back_is_due_again(share: Subject) -> None:
    share.on_due([parked(1, "a", attempts=1, together=4)])
    share.give_back(share.start(1))
    write = share.write(["a"])
    assert write.started == [Started(1, 20.0, 1)]
    assert write.parked == [Parked(1, 1, 4, 0.0)], "which is what counts, since it is written after that"


def test_it_is_idle_when_nothing_is_left_to_be_handed_out_and_nothing_in_flight(share: Subject) -> None:
    found = [share.idle]
    share.read(entry(1, "a"), entry(2, "a"))
    found.append(share.idle)
    first = share.start(1)
    assert share.start(1) == [], "the second is held"
    found.append(share.idle)
    share.acknowledge(first)
    found.append(share.idle)
    share.acknowledge(share.start(1))
    found.append(share.idle)
    assert found == [True, False, False, False, True]


def test_it_is_not_idle_while_parked_entries_are_due_or_in_flight(share: Subject) -> None:
    share.on_due([parked(7)])
    found = [share.idle]
    items = share.start(1)
    found.append(share.idle)
    share.acknowledge(items)
    found.append(share.idle)
    assert found == [False, False, True]


# -- lines of parked entries


def test_what_was_due_is_no_more_when_something_before_it_is_parked(share: Subject) -> None:
    share.read(entry(1, "a"))
    first = share.begin()
    share.on_due([parked(2, "a"), parked(3, "b"), parked(4)])
    share.fail(first, "no")
    assert share.due == 2
    assert [ids(share.start(1)) for _ in range(3)] == [[3], [4], []]


def test_what_was_due_stays_so_when_something_behind_it_is_parked(share: Subject) -> None:
    share.on_due([parked(1, "a")])
    share.read(entry(2, "a"), entry(3))
    assert ids(share.start(1)) == [1]
    share.on_due([parked(0, "a")])
    assert ids(share.start(1)) == [3]
    assert 0 in share.known
    assert ids_parked(share.write(["a"])) == [2]


@pytest.mark.parametrize("done", [True, False])
def test_what_was_read_of_a_key_before_something_of_it_is_written_down_may_not_be_due(
    share: Subject, done: bool
) -> None:
    share.on_due([parked(1, "a")])
    items = share.begin()
    if done:
        share.acknowledge(items)
    else:
        share.fail(items, "no")
    share.on_due([parked(2, "a"), parked(3, "b"), parked(4)])
    assert share.due == 2
    share.write(["a"])
    share.on_due([parked(2, "a")])
    assert share.due == 3


# -- blocked keys


def test_a_key_is_free_when_nothing_of_it_waits_any_more() -> None:
    share = Subject(blocked=["a"])
    share.on_due([parked(1, "a")])
    share.acknowledge(share.begin())
    share.write()
    share.read(entry(2, "a"))
    assert ids(share.start(1)) == [2]


def test_a_key_stays_blocked_while_something_of_it_waits() -> None:
    share = Subject(blocked=["a"])
    share.on_due([parked(1, "a")])
    share.acknowledge(share.begin())
    share.write(["a"])
    share.read(entry(2, "a"))
    assert share.start(1) == []


def test_a_key_stays_blocked_if_something_of_it_was_parked_while_the_server_wrote() -> None:
    share = Subject(blocked=["a"])
    share.on_due([parked(1, "a")])
    share.acknowledge(share.begin())
    write = share.plan_write()
    assert write is not None
    share.read(entry(2, "a"), entry(3, "a"))
    assert share.start(1) == []
    share.on_written(write, [])
    [lane] = share.lanes()
    share.on_read(lane, [entry(4, "a", xid=XID + 1)], batch_of(AFTER, Covered(XID + 2), last=4))
    assert share.start(1) == [], "before those that are parked"
    assert ids_parked(share.write(["a"])) == [2, 3, 4]


def ids_parked(write: Write) -> list[int]:
    return [one.id for one in write.parked]


def test_keys_that_wait_are_blocked_also_if_nobody_here_has_parked_them(share: Subject) -> None:
    share.read(entry(1))
    share.start(1)
    share.write(["a"])
    [lane] = share.lanes()
    share.on_read(lane, [entry(2, "a", xid=XID + 1)], batch_of(AFTER, Covered(XID + 2), last=2))
    assert share.start(1) == []


# -- leaving


def test_slots_in_which_nothing_happens_are_left_first() -> None:
    share = Subject(1, 2, 3)
    share.read(entry(1, slot=1), entry(2, "a", slot=2), entry(3, "a", slot=2), entry(4, slot=3))
    share.start(1)
    share.start(1)
    assert ids(share.start(1)) == [4]
    share.acknowledge([entry(4, slot=3)])
    share.leave(1)
    assert {*share.slots} == {1, 2}
    share.leave(1)
    assert {*share.slots} == {2}


def test_a_slot_goes_at_once_if_nothing_is_in_flight_and_what_was_not_looked_at_is_read_by_another() -> None:
    share = Subject(1, 2)
    share.read(entry(1, slot=2), entry(2, slot=1), entry(3, slot=2))
    assert ids(share.begin()) == [1]
    share.leave(1)
    assert share.slot(1) == SlotState(1, Place(BEFORE, AFTER, 1), [], [], False)
    assert share.waiting == 1
    assert ids(share.start(9)) == [3]


def test_a_slot_stays_until_nothing_of_it_is_in_flight_or_held(share: Subject) -> None:
    share.read(entry(1, "a"), entry(2, "a"), entry(3))
    first = share.start(1)
    third = share.start(1)
    assert (ids(first), ids(third)) == ([1], [3])
    share.leave(1)
    assert share.slots == {}
    assert share.slot() == SlotState(1, Place(AFTER), [1, 3], [2], True)
    assert share.plan_write() is None, "it is written down as it stands, until something of it is settled"
    share.acknowledge(first)
    share.acknowledge(third)
    assert share.slot() == SlotState(1, Place(AFTER), [], [2], True)
    share.acknowledge(share.begin())
    assert share.slot() == SlotState(1, Place(AFTER), [], [], False)
    assert share.plan_write() is None


def test_a_slot_stays_until_no_parked_entry_of_it_is_in_flight_and_others_that_were_due_come_to_another() -> None:
    share = Subject(1, 2)
    share.on_due([parked(1, slot=1), parked(2, slot=1), parked(3, slot=2)])
    items = share.begin()
    share.leave(2)
    states = {state.number: state.kept for state in share.write().slots}
    assert states == {1: True, 2: False}
    assert share.start(1) == []
    share.acknowledge(items)
    write = share.write()
    assert write.done == [1]
    assert [(state.number, state.kept) for state in write.slots] == [(1, False)]


def test_a_slot_that_is_being_left_is_not_left_again() -> None:
    share = Subject(1, 2)
    share.read(entry(1, slot=1), entry(2, slot=2))
    share.begin(2)
    share.leave(1)
    share.leave(1)
    assert share.slots == {}


def test_a_slot_that_was_left_can_be_taken_again(share: Subject) -> None:
    share.leave(1)
    share.write()
    share.on_taken(1, Place(AFTER))
    assert share.slots == {1: Place(AFTER)}


# -- what to write down


def test_there_is_nothing_to_write_down_when_nothing_has_changed(share: Subject) -> None:
    assert share.plan_write() is None
    share.read(entry(1))
    assert share.plan_write() is None, "which is read again, if it comes to that"
    share.start(1)
    assert share.plan_write() is not None
    assert share.plan_write() is None


def test_that_something_was_handed_out_may_be_forgotten_with_it(share: Subject) -> None:
    share.read(entry(1))
    share.start(1)
    assert share.write() == Write(slots=[SlotState(1, Place(AFTER), [1], [], True)])


def test_only_slots_in_which_something_happened_are_written_down() -> None:
    share = Subject(1, 2)
    share.read(entry(1), entry(2, slot=2))
    share.start(1)
    assert [state.number for state in share.write().slots] == [1]


def test_how_far_slots_were_read_in_which_nothing_happens_is_written_down_from_time_to_time() -> None:
    share = Subject(1, 2)
    share.read(entry(1))
    share.refresh()
    assert share.write().slots == [
        SlotState(1, Place(BEFORE, AFTER, 0), [], [], True),
        SlotState(2, Place(AFTER), [], [], True),
    ]
    share.refresh()
    assert share.plan_write() is None


def test_what_happens_while_the_server_writes_is_for_the_next_time(share: Subject) -> None:
    share.read(entry(1), entry(2))
    items = share.start(1)
    write = share.plan_write()
    assert write is not None
    share.acknowledge(items)
    share.start(1)
    share.on_written(write, [])
    assert share.slot() == SlotState(1, Place(AFTER), [2], [], True)
