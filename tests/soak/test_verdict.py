"""The verdict of the soak: that it finds what grows, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from tests.soak.lines import LINES
from tests.soak.verdict import Bound, growth, medians, warm_up

MINUTES = 30
MESSAGES = 60
"""A second."""


def noisy(
    level: float, noise: float, *, seed: int = 1, hourly: float = 0.0, minutes: float = MINUTES
) -> list[tuple[float, float]]:
    """A sample a second, that goes up or not."""
    chance = Random(seed)
    seconds = range(int(minutes * 60))
    return [(second, level + hourly * second / 3600 + chance.gauss(0, noise)) for second in seconds]


def grows(name: str, line: Sequence[tuple[float, float]]) -> bool:
    found = growth(line, LINES[name].bound)
    assert found is not None
    return found.grows


def test_a_kib_of_memory_for_each_message_is_found_within_minutes() -> None:
    leak = 3600 * MESSAGES / 1024  # MiB an hour
    assert grows("rss", noisy(90, 2, hourly=leak, minutes=5))


def test_a_hundred_bytes_for_each_message_are_found_in_half_an_hour() -> None:
    assert grows("rss", noisy(90, 2, hourly=3600 * MESSAGES / 1024 / 10))


def test_an_object_for_each_client_that_comes_and_goes_is_found_in_half_an_hour() -> None:
    assert grows("objects", noisy(80_000, 500, hourly=3600 * 2))


def test_a_descriptor_a_minute_is_found() -> None:
    line = [(second, 60.0 + second // 60 + Random(second).choice([0, 0, 1, 2, 5])) for second in range(MINUTES * 60)]
    assert grows("descriptors", line)


@pytest.mark.parametrize("seed", range(20))
def test_what_goes_up_and_down_does_not_grow(seed: int) -> None:
    assert not grows("rss", noisy(90, 5, seed=seed))
    assert not grows("descriptors", noisy(60, 4, seed=seed))


def test_what_finds_its_level_does_not_grow() -> None:
    line = [(second, 90 + min(second / 120, 2.0)) for second in range(MINUTES * 60)]
    assert not grows("rss", line)


def test_a_moment_that_is_out_of_line_is_no_trend() -> None:
    line = [(second, 60.0 if second < MINUTES * 60 - 30 else 200.0) for second in range(MINUTES * 60)]
    assert not grows("descriptors", line)


def test_what_shrinks_does_not_grow() -> None:
    assert not grows("rss", noisy(90, 1, hourly=-100))


def test_of_a_long_run_more_is_asked() -> None:
    hourly = 4.0
    assert not grows("rss", noisy(90, 0.5, hourly=hourly))
    assert grows("rss", noisy(90, 0.5, hourly=hourly, minutes=480))


def test_too_few_samples_are_no_verdict() -> None:
    assert growth([(0.0, 1.0), (1.0, 2.0)], Bound(1)) is None
    assert growth([], Bound(1)) is None


def test_growth_is_told_by_the_hour() -> None:
    found = growth([(second, second / 3600) for second in range(3601)], Bound(0.5))
    assert found is not None
    assert found.hourly == pytest.approx(1.0)
    assert found.grows


def test_intervals_without_a_sample_are_left_out() -> None:
    line = [*((second, 1.0) for second in range(100)), *((second, 2.0) for second in range(900, 1000))]
    assert {value for _, value in medians([(float(second), value) for second, value in line])} == {1.0, 2.0}


@pytest.mark.parametrize(("seconds", "warm"), [(28_800, 2880), (1800, 180), (600, 60), (60, 20), (12, 4)])
def test_the_warm_up(seconds: float, warm: float) -> None:
    assert warm_up(seconds) == warm
