"""Delays between attempts to connect."""

from __future__ import annotations

from itertools import islice

from pgpubsub.core.backoff import backoff


def test_the_first_attempt_is_immediate_and_the_others_grow_to_the_maximum() -> None:
    delays = list(islice(backoff(lambda: 1.0, initial=1, factor=3, maximum=10), 6))
    assert delays == [0, 1, 3, 9, 10, 10]


def test_half_of_every_delay_is_fixed_so_no_attempt_comes_at_once() -> None:
    delays = list(islice(backoff(lambda: 0.0, initial=1, factor=3, maximum=10), 6))
    assert delays == [0, 0.5, 1.5, 4.5, 5, 5]


def test_by_default_the_delays_end_at_half_a_minute() -> None:
    assert max(islice(backoff(lambda: 0.999), 50)) <= 30


def test_every_delay_draws_anew() -> None:
    draws = iter([0.0, 1.0, 0.0])
    delays = backoff(lambda: next(draws), initial=2, factor=1, maximum=2)
    assert list(islice(delays, 4)) == [0, 1, 2, 1]
