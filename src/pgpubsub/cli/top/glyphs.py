"""Characters and figures of the screen. What does not depend on colour, nor on a font with everything in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console

__all__ = ["Glyphs", "glyphs_for", "quantity", "rate", "span"]


class Glyphs(NamedTuple):
    """The characters that are not ASCII, or what stands in for them."""

    full: str
    empty: str
    bars: str
    letters: bool = False
    """Whether there are letters other than those of ASCII."""

    def gauge(self, share: float, cells: int) -> str:
        """A bar of so many cells. It is empty only at 0, and full only at 1.

        >>> Glyphs("#", ".", " .:").gauge(0.01, 5)
        '#....'
        """
        filled = 0 if share <= 0 else max(1, min(int(share * cells), cells))
        return self.full * filled + self.empty * (cells - filled)

    def steps(self, figures: Sequence[float], cells: int) -> str:
        """The last figures as bars of different height, the highest of them full.

        >>> Glyphs("#", ".", " .:").steps([0, 1, 2], 4)
        '  .:'
        """
        highest = max(figures, default=0.0)
        top = len(self.bars) - 1
        places = [0 if highest <= 0 or one <= 0 else max(1, round(one / highest * top)) for one in figures[-cells:]]
        return "".join(self.bars[place] for place in places).rjust(cells)


UNICODE = Glyphs("█", "░", " ▁▂▃▄▅▆▇█", True)
ASCII = Glyphs("#", ".", " .:-=#")


def glyphs_for(console: Console) -> Glyphs:
    """What this terminal or file can take."""
    return UNICODE if console.encoding.startswith("utf") else ASCII


def quantity(number: int, at_least: bool = False) -> str:
    """A number; with a plus sign if there may be more.

    >>> quantity(10_000, True), quantity(2_345_678_901)
    ('10,000+', '2,345,678,901')
    """
    return f"{number:,}" + "+" * at_least


def rate(per_second: float | None, at_least: bool = False) -> str:
    """A figure per second, of three digits or more.

    >>> rate(0.25), rate(12.3456), rate(1234.5), rate(None)
    ('0.25', '12.3', '1,234', '-')
    """
    if per_second is None:
        return "-"
    if per_second == 0:
        return "0"
    digits = 2 if per_second < 10 else 1 if per_second < 100 else 0
    return f"{per_second:,.{digits}f}" + "+" * at_least


def span(seconds: float | None) -> str:
    """A time that has passed, in its largest unit.

    >>> span(0.2), span(59.6), span(3600 * 30), span(None)
    ('0 s', '59 s', '30 h', '-')
    """
    if seconds is None:
        return "-"
    for unit, length, most in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48)):
        if seconds < most * length:
            return f"{max(0, int(seconds / length))} {unit}"
    return f"{int(seconds / 86_400):,} d"
