"""How things are called and written on the pages."""

from __future__ import annotations

import re
from inspect import getdoc

from bench.comparison import Metric, Spread
from bench.parts import PARTS
from bench.table import number, ratio

__all__ = ["about", "anchor", "goal", "itself", "spread", "subject", "times", "title"]


def title(name: str) -> str:
    """Of a part: what it is about, in a few words."""
    return re.split("[:,]", subject(name))[0]


def subject(name: str) -> str:
    """What a part is about, in a sentence."""
    first, _, _ = about(name).partition("\n\n")
    return _sentence(first.replace("\n", " ").removeprefix("The part about "))


def about(name: str) -> str:
    """The same, and how it is measured."""
    return getdoc(PARTS[name]) or ""


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    kept = [letter for letter in heading.lower() if letter.isalnum() or letter in " -_"]
    return "".join(kept).replace(" ", "-")


def spread(ratio: Spread) -> str:
    """How many times as good, and the quartiles."""
    return f"{times(ratio.median)} ({times(ratio.lower)} to {times(ratio.upper)})"


def times(value: float) -> str:
    """How many times; of a small one, the inverse, so that it can be read."""
    return ratio(value, inverted=value < 0.1)


def goal(metric: Metric, limit: float) -> float:
    """How many times as good an aim of `limit` times as many is."""
    return limit if metric.more_is_better else 1 / limit


def itself(metric: Metric, limit: float) -> str:
    """An aim that is about the figure."""
    return f"{'at least' if metric.more_is_better else 'at most'} {number(limit)}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
