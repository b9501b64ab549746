"""What a reader has read ahead, rule by rule."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from pgpubsub import Entry, Gap, GapReason, Undecodable
from pgpubsub.core.pages import Pages
from pgpubsub.core.position import Anchor, Covered, Position
from pgpubsub.core.reading import Batch

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLACE = Position(UUID(int=1), 7, 1, Covered(90), Anchor(9, 0), Covered(100))
BATCH = Batch(PLACE, PLACE, None)
GAP = Gap(GapReason.REWOUND, ("orders",), NOW, None, "")
LOW, LONG = 2, 100


def entry(id: int) -> Entry[str]:
    return Entry(id, None, str(id), None, NOW, BATCH)


class Subject(Pages):
    """Pages that count how often they asked for more."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        super().__init__(LOW, LONG, lambda: self.asked.append(len(self)))

    def fill(self, *ids: int) -> None:
        self.put([entry(id) for id in ids], 0)

    def ids(self, count: int) -> list[Any]:
        taken = [self.take() for _ in range(count)]
        return [one.id if isinstance(one, Entry) else one for one in taken]


@pytest.fixture
def pages() -> Subject:
    return Subject()


def test_entries_and_gaps_come_out_in_the_order_in_which_they_were_put_in(pages: Subject) -> None:
    pages.fill(1, 2)
    pages.report(GAP)
    pages.fill(1, 3)
    assert len(pages) == 5
    assert pages.ids(6) == [1, 2, GAP, 1, 3, None]
    assert (pages.delivered, pages.gaps) == (4, 1)


def test_more_is_asked_for_once_when_what_is_left_grows_short(pages: Subject) -> None:
    pages.fill(1, 2, 3, 4, 5)
    pages.ids(2)
    assert pages.asked == []
    pages.ids(1)
    assert pages.asked == [LOW + 1]
    pages.ids(2)
    assert pages.asked == [LOW + 1]


def test_who_is_asked_in_the_midst_of_a_taking_out_does_not_wait_to_be_asked_again(pages: Subject) -> None:
    """The event is still there when more is asked for. In another thread a whole page may be read, and be empty, before
    it is gone; and nobody asks again."""
    enough: list[bool] = []
    pages._on_low = lambda: enough.append(pages.has_enough)
    pages.fill(1, 2, 3, 4)
    assert pages.has_enough
    pages.ids(2)
    assert enough == [False]


def test_long_entries_are_to_be_taken_before_more_is_asked_for(pages: Subject) -> None:
    pages.put([entry(id) for id in (1, 2, 3, 4)], LONG + 1)
    enough = [pages.has_enough]
    pages.ids(3)
    assert pages.asked == []
    pages.ids(1)
    assert pages.asked == [1]
    enough.append(pages.has_enough)
    assert enough == [True, False]
    assert pages.bytes == LONG + 1


def test_what_cannot_be_decoded_is_an_entry_too(pages: Subject) -> None:
    event = Undecodable(entry(7), ValueError("wrong"))
    pages.put([event], 1)
    assert pages.take() is event
    assert pages.position == entry(7).position
    pages.restore(event)
    assert pages.position == entry(7).position_before()
    assert pages.delivered == 0


def test_what_is_put_back_comes_out_again_and_was_not_handed_out(pages: Subject) -> None:
    pages.fill(1, 2)
    first, second = pages.take(), pages.take()
    assert isinstance(first, Entry)
    assert isinstance(second, Entry)
    assert pages.position == second.position
    pages.restore(second)
    assert pages.position == second.position_before()
    assert pages.delivered == 1
    pages.report(GAP)
    assert pages.ids(1) == [2]
    gap = pages.take()
    assert gap is GAP
    pages.restore(gap)
    assert pages.gaps == 0
    assert pages.ids(1) == [GAP]
    assert pages.gaps == 1


def test_the_position_is_before_an_entry_that_comes_again(pages: Subject) -> None:
    assert not pages.position
    pages.fill(1, 2)
    first, _ = pages.take(), pages.take()
    assert isinstance(first, Entry)
    pages.restore(first)  # by another consumer than has got the second
    assert pages.position is not None
    assert Position.decode(pages.position, 7).last == 0
    assert pages.ids(1) == [1]
    assert pages.position == first.position
    assert Position.decode(first.position, 7).last == 1


def test_what_is_dropped_was_not_delivered(pages: Subject) -> None:
    pages.fill(1, 2, 3)
    pages.ids(1)
    pages.forget("orders")
    assert len(pages) == 2
    pages.clear()
    assert (len(pages), pages.delivered, pages.dropped) == (0, 1, 0)
    assert pages.take() is None
