"""The checks of the campaign: that they find what is wrong, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from tests.chaos.checks import Entry, Gap, Notify, Outcome, Record, Sent, check_reader, check_subscriber


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


REWOUND = Gap("rewound", (), None, None)

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


def test_readers_get_everything_once_and_in_order() -> None:
    one, two, three, other = Entry("p", 1), Entry("p", 2), Entry("p", 3), Entry("q", 1)
    everything = [one, two, three, other]
    assert check_reader("r", [one, other, two, three], everything, everything) == []
    cases: list[tuple[list[Entry | Gap], str]] = [
        ([one, other, two], "did not come"),
        ([one, other, three, two], "came after 3"),
        ([*everything, two], "came 2 times"),
        ([*everything, Entry("p", 9)], "is not in the table"),
        ([*everything, REWOUND], "nothing that can be lost"),
        ([*everything, Gap("trimmed", (), None, None)], "that cannot be"),
    ]
    for events, what in cases:
        assert any(what in wrong for wrong in check_reader("r", events, everything, everything)), what
    assert check_reader("r", [one, other, three, two], everything, [one, three, other]) == [], "two was uncertain"
    assert "was acknowledged" in check_reader("r", [one], [one], [one, two])[0]


def test_who_has_got_what_the_servers_have_lost_is_told_so() -> None:
    old, kept, lost, late, new = (Entry("p", number) for number in range(5))
    there, sure, doubtful = [kept, late, new], [kept, lost, late, new], [lost, late]

    def wrong(*events: Entry | Gap) -> list[str]:
        return check_reader("r", events, there, sure, doubtful=doubtful, earlier=[old])

    assert wrong(kept, late, new) == [], "it has got nothing of what is lost"
    assert wrong(kept, lost, REWOUND, late, new) == []
    assert wrong(kept, lost, REWOUND, old, kept, late, new) == [], "what both histories have may come again"
    assert wrong(kept, lost, REWOUND, REWOUND, late, new) == [], "it may have gone on before it was told"
    cases: list[tuple[list[Entry | Gap], str]] = [
        ([kept, lost, late, new], "came and is not in the table"),
        ([kept, REWOUND, lost, late, new], "nothing that can be lost"),
        ([kept, late, REWOUND, lost, new], "came and is not in the table"),
        ([kept, lost, REWOUND, new], "did not come"),
        ([kept, lost, REWOUND, late, late, new], "came 2 times"),
        ([kept, lost, REWOUND, new, late], "came after"),
        ([old, kept, late, new], "came and is not in the table"),
        ([Entry("p", 9), lost, REWOUND, late, kept, new], "was never in the table"),
    ]
    for events, what in cases:
        assert any(what in one for one in wrong(*events)), what
    assert "was acknowledged" in check_reader("r", [kept], [kept], [kept, lost])[0]
