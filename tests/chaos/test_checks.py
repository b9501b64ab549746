"""The checks of the campaign: that they find what is wrong, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from tests.chaos.checks import (
    Gap,
    Notify,
    Outcome,
    Record,
    Sent,
    check_calm,
    check_subscriber,
    check_told,
)


def sent(*outcomes: str, publisher: str = "p", begun: float = 10.0) -> list[Sent]:
    """One message a second, from 1 on."""
    return [
        Sent(publisher, number, begun + number, begun + number + 0.1, cast(Outcome, outcome))
        for number, outcome in enumerate(outcomes, 1)
    ]


def record(*events: int | Gap, **options: Any) -> Record:
    """Of numbers of messages, and gaps."""
    its = [event if isinstance(event, Gap) else Notify("c", "p", event) for event in events]
    return Record("r", ("c",), options.pop("opened", 5.0), events=list(its), **options)


def gap(since: float | None = None, count: int | None = None, channels: Sequence[str] = ("c",)) -> Gap:
    return Gap("overflow" if count else "connection_lost", tuple(channels), since, count)


ALL = {"c": sent(*["committed"] * 5)}


@pytest.mark.parametrize(
    "its",
    [
        record(1, 2, 3, 4, 5),
        record(1, gap(), 4, 5),
        record(1, 2, gap(count=2), 5),
        record(gap(), 3, gap(), 5),
        record(1, 2, 3, gap()),
        record(3, 4, 5, opened=12.5),
        record(gap(since=9.0), 4, 5, opened=12.5),
        record(1, 2, 3, ended=True),
        record(1, gap(count=1), 3, ended=True),
        record(2, 5, latest=True),
        record(1, gap(since=13.5), gap(), 4, 5),
        record(1, 2, gap(), 1, 2, 3, 4, 5, wanders=True),
        record(1, 2, 4, gap(), 3, 4, 5, wanders=True),
    ],
)
def test_nothing_is_wrong(its: Record) -> None:
    assert check_subscriber(its, ALL) == []


@pytest.mark.parametrize(
    ("its", "what"),
    [
        (record(1, 2, 4, 5), "is missing, and no gap"),
        (record(1, 2, 3, 4), "is missing, and no gap"),
        (record(2, 3, 4, 5), "is missing, and no gap"),
        (record(1, gap(channels=["d"]), 3, 4, 5), "is missing, and no gap"),
        (record(gap(), 1, 2, 4, 5), "is missing, and no gap"),
        (record(1, 2, gap(since=15.0), 4, 5), "is missing, and no gap"),
        (record(1, 2, 3, 3, 4, 5), "came twice"),
        (record(1, 3, 2, 4, 5), "came before"),
        (record(1, 2, gap(), 2, 3, 4, 5), "came twice"),
        (record(1, gap(), 2, 3, 3, 4, 5, wanders=True), "came twice"),
        (record(1, gap(), 3, 2, 4, 5, wanders=True), "came before"),
        (record(1, 2, 3, 4, 5, 6), "nothing that was sent"),
        (record(1, gap(count=1), 4, 5), "says 1, and 2 to 2 are missing"),
        (record(1, gap(count=3), 4, 5), "says 3, and 2 to 2 are missing"),
        (record(1, 3, ended=True), "is missing, and no gap"),
        (record(gap(since=9.0), 1, 2, 3, 4, 5, sent_before=9.5), "begins before 9.5"),
        (record(5, 2, latest=True), "came before"),
    ],
)
def test_something_is_wrong(its: Record, what: str) -> None:
    wrong = check_subscriber(its, ALL)
    assert wrong
    assert all(what in one for one in wrong), wrong


def test_what_has_come_is_not_missing() -> None:
    (wrong,) = check_subscriber(record(1, 2, gap(since=11.5), 4, 5), ALL)
    assert "begins before 12.0" in wrong
    assert check_subscriber(record(1, 2, gap(since=11.5), 4, 5), ALL, on_its_way=0.5) == []


def test_who_has_gone_was_there_until_the_last_that_came() -> None:
    """What was committed before that was sent, by whomever, is missing if it did not come."""
    its = {"c": sent(*["committed"] * 5), "d": sent(*["committed"] * 5, publisher="q", begun=10.5)}
    events: list[Notify | Gap] = [Notify("c", "p", 1), Notify("d", "q", 1), Notify("d", "q", 2), Notify("d", "q", 3)]
    gone = Record("r", ("c", "d"), 5.0, ended=True, events=events)
    assert ["number=2" in one or "number=3" in one for one in check_subscriber(gone, its)] == [True, True]
    events.insert(1, gap(channels=["c"]))
    assert check_subscriber(gone, its) == []


def test_where_nothing_happens_nothing_is_lost() -> None:
    assert check_calm(record(1, gap(count=2), 4)) == [], "its buffer was full"
    (wrong,) = check_calm(record(1, gap(), 4))
    assert "nothing has happened" in wrong


def test_who_keeps_the_newest_alone_is_told_of_lost_connections() -> None:
    first, second = Gap("connection_lost", ("c",), 10.0, None, 12.0), Gap("heartbeat", ("c",), 20.0, None, 23.0)
    both = Gap("connection_lost", ("c",), 10.01, None, 25.0)
    assert check_told([first, second], [first, second]) == []
    assert check_told([first, second], [both]) == []
    (wrong,) = check_told([first, second], [first])
    assert "heartbeat" in wrong
    assert check_told([gap(count=2)], []) == [], "that was somebody else's"


def test_gaps_that_share_what_is_missing_count_together() -> None:
    its = record(1, gap(count=1), gap(count=2), 5)
    assert check_subscriber(its, ALL) == []
    its.events[2] = gap(count=3)
    assert "says 4, and 3 to 3 are missing" in check_subscriber(its, ALL)[0]


def test_an_overflow_counts() -> None:
    (wrong,) = check_subscriber(record(1, Gap("overflow", ("c",), None, None), 5), ALL)
    assert "does not count" in wrong


def test_a_message_may_have_been_on_its_way_when_others_arrived() -> None:
    its = record(1, 2, gap(since=15.0), 4, 5)
    assert check_subscriber(its, ALL, on_its_way=2.0) == []
    assert check_subscriber(its, ALL, on_its_way=1.0) != []


def test_what_is_uncertain_may_come_at_any_time_or_never() -> None:
    its = {"c": sent("committed", "uncertain", "committed", "uncertain", "not")}
    for events in ([1, 3], [1, 2, 3, 4], [1, 3, 2], [1, gap(), 3, 4]):
        assert check_subscriber(record(*events), its) == []
    (wrong,) = check_subscriber(record(1, 3, 5), its)
    assert "although it was not sent" in wrong


def test_a_count_is_that_of_all_publishers() -> None:
    its = {"c": [*sent(*["committed"] * 3), *sent("committed", "uncertain", "committed", publisher="q")]}
    events: list[Notify | Gap] = [
        Notify("c", "p", 1),
        Notify("c", "q", 1),
        gap(count=2),
        Notify("c", "p", 3),
        Notify("c", "q", 3),
    ]
    for count, right in ((0, False), (1, True), (2, True), (3, False)):
        events[2] = gap(count=count or None) if count else Gap("overflow", ("c",), 10.0, 0)
        assert (check_subscriber(Record("r", ("c",), 5.0, events=list(events)), its) == []) is right
