"""What is a time-out, and what is none."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from pgpubsub.core.timeouts import check_seconds, check_timeout


@pytest.mark.parametrize(("given", "seconds"), [(None, None), (0, 0.0), (1.5, 1.5), (Fraction(1, 2), 0.5)])
def test_numbers_of_seconds_and_none_are_timeouts(given: Any, seconds: float | None) -> None:
    assert check_timeout(given) == seconds


def test_an_endless_timeout_is_one_that_the_system_can_wait_for() -> None:
    assert check_timeout(float("inf")) == 1e9


@pytest.mark.parametrize("given", ["1", True, [1], Decimal("1")])
def test_what_is_no_number_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match="a timeout is a number of seconds or None, not"):
        check_timeout(given)


@pytest.mark.parametrize("given", [-1, float("nan")])
def test_less_than_nothing_is_refused(given: float) -> None:
    with pytest.raises(ValueError, match="a timeout cannot be"):
        check_timeout(given)


@pytest.mark.parametrize("given", [1, 0.5, float("inf")])
def test_a_time_that_can_pass_is_one(given: float) -> None:
    check_seconds("heartbeat", given)


@pytest.mark.parametrize(
    ("given", "error"),
    [("1", TypeError), (True, TypeError), (0, ValueError), (-1, ValueError), (float("nan"), ValueError)],
)
def test_other_times_are_refused_by_name(given: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^heartbeat is a .*number of seconds, not {given!r}$"):
        check_seconds("heartbeat", given)
