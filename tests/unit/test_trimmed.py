"""What was removed, and who had not got it."""

from __future__ import annotations

from uuid import UUID

import pytest

from pgpubsub.core.position import Anchor, Covered, Newest, Position
from pgpubsub.core.trimmed import LISTED, Trimmed


def removed(*listed: tuple[int, int], last: int = 0) -> Trimmed:
    """Of these transactions entries up to these ids."""
    xid, id = listed[0]
    highest = max(last, *[id for _, id in listed])
    return Trimmed(len(listed), highest, False, Newest(xid, Anchor(id, 0)), listed)


def many(newest: int, last: int = 0) -> Trimmed:
    """Of as many transactions as are listed, with ids ten times as high."""
    return removed(*[(xid, 10 * xid) for xid in range(newest, newest - LISTED, -1)], last=last)


def at(below: int, *open: int, target: Covered | None = None, last: int = 0) -> Position:
    return Position(UUID(int=1), 5, 1, Covered(below, open), None, target, last)


def test_it_is_read_from_what_the_database_says() -> None:
    expected = Trimmed(7, 30, True, Newest(756, Anchor(29, 1000)), ((756, 29), (753, 30)))
    assert Trimmed.parse("7 30 1 29 1000 {756,753} {29,30}") == expected
    assert not Trimmed.parse("7 30 0 29 1000 {756} {29}").kept


def test_who_has_not_begun_has_missed_nothing() -> None:
    assert not removed((100, 1000)).took_from(at(0))
    assert not removed((100, 1000)).took_from(at(0, target=Covered(200)))


def test_but_who_has_looked_and_found_nothing_has() -> None:
    assert removed((100, 1000)).took_from(at(3))


@pytest.mark.parametrize(
    ("position", "missed"),
    [
        (at(101), False),
        (at(100), True),
        (at(200, 100), True),
        (at(200, 99), False),  # it had no entries, or they are there
        (at(200, 40), False),
    ],
)
def test_what_is_not_covered_was_missed(position: Position, missed: bool) -> None:
    assert removed((100, 1000), (90, 900)).took_from(position) is missed


@pytest.mark.parametrize(
    ("position", "missed"),
    [
        (at(50, target=Covered(200), last=1000), False),
        (at(50, target=Covered(200), last=999), True),
        (at(95, target=Covered(200), last=899), True),
        (at(101, target=Covered(200), last=10), False),
        (at(50, target=Covered(200, (90,)), last=1000), True),
        (at(50, target=Covered(100), last=1000), True),
        (at(0, target=Covered(200), last=999), True),
    ],
)
def test_in_the_midst_of_a_batch_the_ids_decide(position: Position, missed: bool) -> None:
    assert removed((100, 1000), (90, 900)).took_from(position) is missed


@pytest.mark.parametrize(
    ("position", "missed"),
    [
        (at(1001), False),
        (at(1001, 950), True),
        (at(1001, 900), True),  # nobody knows: it is older than what is listed
        (at(850, target=Covered(1001), last=10_000), False),
        (at(850, target=Covered(1001, (840,)), last=10_000), True),
        (at(1001, 840, target=Covered(1200), last=10_000), False),
        (at(850, target=Covered(1001), last=9_999), True),
    ],
)
def test_of_what_is_not_listed_the_worst_is_assumed(position: Position, missed: bool) -> None:
    assert many(1000).took_from(position) is missed


def test_as_far_as_the_ids_allow_it() -> None:
    late = many(1000, last=20_000)  # in an old transaction, with a high id
    assert late.took_from(at(850, target=Covered(1001), last=10_000))
    assert not late.took_from(at(850, target=Covered(1001), last=20_000))
    assert not late.took_from(at(950, target=Covered(1001), last=10_000))
