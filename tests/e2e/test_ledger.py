"""The demonstration's books: they must not explain away what the library has lost."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pgpubsub.cli.demo.ledger import Ledger, ranges
from pgpubsub.events import Gap, GapReason, Notify

GAP = Gap(GapReason.CONNECTION_LOST, ("orders",), datetime(2026, 1, 1, tzinfo=UTC), None, "reset")


def ledger_of(story: str) -> Ledger:
    """A word for each event: `3` is sent, `=3` arrives, `gap` is reported."""
    ledger = Ledger()
    for word in story.split():
        if word == "gap":
            ledger.lose(GAP, 0.0)
        elif word.startswith("="):
            ledger.arrive(int(word[1:]), Notify(1, "orders", word[1:]), 0.0)
        else:
            assert ledger.send(0.0) == int(word)
    return ledger


def test_what_was_sent_before_a_gap_was_reported_is_accounted_for() -> None:
    ledger = ledger_of("1 =1 2 3 gap 4 =4")
    assert ledger.complaints() == []
    assert ledger.lost == 2
    assert list(ledger.holes[0].missing) == ledger.missing() == [2, 3]


@pytest.mark.parametrize(
    ("story", "complaint"),
    [
        ("1 2 3", "nothing was received"),
        ("1 =1", "no gap was reported"),
        ("1 =1 gap 2", "nothing was received after the gap"),
        ("1 2 =2 3 gap 4 =4", "missing outside of any gap: #1"),
        ("1 =1 2 gap 3 4 =4", "missing outside of any gap: #3"),
        ("1 =1 gap 2 =2 3", "missing outside of any gap: #3"),
        ("1 2 =2 =1 gap 3 =3", "1 arrived twice or out of order"),
        ("1 =1 =1 gap 2 =2", "1 arrived twice or out of order"),
    ],
)
def test_anything_else_is_complained_about(story: str, complaint: str) -> None:
    assert any(text.startswith(complaint) for text in ledger_of(story).complaints())


def test_several_gaps() -> None:
    ledger = ledger_of("1 =1 2 gap 3 =3 4 gap 5 =5 gap 6 =6")
    assert ledger.complaints() == []
    assert [list(hole.missing) for hole in ledger.holes] == [[2], [4], []]


def test_latency_of_nothing_is_nothing() -> None:
    assert Ledger().latency(0.5) == 0.0


def test_ranges_of_nothing() -> None:
    assert ranges([]) == ""
