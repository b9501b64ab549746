"""A chart for each part: a line for each metric, how many times as good the best of ours is as the best of the peers.

The background is transparent, and all colours can be told from white and from black.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.comparison import Comparison, Spread
from bench.contestants import Role
from bench.performance.better import better_without_ratio
from bench.performance.results import Results
from bench.table import number, ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DIRECTORY", "digest", "draw", "lines"]

DIRECTORY = Path(__file__).parent.parent.parent / "docs" / "images"

BETTER, WORSE, NEITHER, TEXT = "#2f81c7", "#d1603d", "#8a8f98", "#808790"
ROW = 0.3
"""Inches."""
BEGINNING, END = 44, 22
"""Characters of a long title: its end says which percentile it is, or what disk."""


class Line(NamedTuple):
    """One metric."""

    title: str
    beside: str
    good: Spread


def lines(comparisons: Sequence[Comparison]) -> list[Line]:
    """Of those in which there are peers."""
    return [line for comparison in comparisons for line in [_line(comparison)] if line]


def _line(comparison: Comparison) -> Line | None:
    """The best of ours is that which is best beside the best peer, and this is the one that is best beside it. None is
    drawn where a peer is better without a ratio."""
    metric = comparison.metric
    peers = {row.contestant: row for row in comparison.rows if row.role is Role.PEER}
    found = []
    for row in comparison.rows:
        ratios = {peer: metric.good(spread) for peer, spread in row.ratios.items() if peer in peers}
        untold = any(better_without_ratio(metric, peer, row) for peer in peers.values())
        if row.role is Role.SUBJECT and ratios and not untold:
            hardest = min(ratios, key=lambda peer: ratios[peer].median)
            found.append(Line(metric.title, f"{row.label}, beside {comparison.label(hardest)}", ratios[hardest]))
    return max(found, key=lambda line: line.good.median, default=None)


def digest(drawn: Sequence[Line]) -> str:
    """Of what a chart shows, which it carries: so one can tell whether it is that of these figures."""
    return hashlib.sha256(json.dumps(drawn).encode()).hexdigest()[:16]


def draw(results: Results, directory: Path = DIRECTORY) -> list[Path]:
    """All charts."""
    from matplotlib import rc_context

    paths = []
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.family": "sans-serif"}):
        for name, part in results.parts.items():
            if drawn := lines(part.comparisons):
                paths.append(directory / f"performance-{name}.svg")
                _chart(drawn, paths[-1])
    return paths


def _chart(drawn: Sequence[Line], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 0.9 + ROW * len(drawn)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    for at, line in enumerate(drawn):
        good = line.good
        color = BETTER if good.lower > 1 else WORSE if good.upper < 1 else NEITHER
        axes.plot([good.lower, good.upper], [at, at], color=color, linewidth=2.5, alpha=0.6)
        axes.plot(good.median, at, "o", color=color, markersize=6)
        text = ratio(good.median) if good.median >= 0.1 else f"1/{number(1 / good.median)}"
        axes.annotate(
            f"{text}  {line.beside}",
            (1.01, at),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            color=TEXT,
            annotation_clip=False,
        )
    _style(axes, drawn)
    metadata: Mapping[str, Any] = {"Date": None, "Creator": None, "Description": digest(drawn)}
    figure.savefig(path, format="svg", transparent=True, metadata=metadata)


def _short(title: str) -> str:
    """
    >>> _short("From the call of an append to the entry in another process, 100/s, a disk of 1 ms, p50")
    'From the call of an append to the entry in ... a disk of 1 ms, p50'
    """
    if len(title) <= BEGINNING + END:
        return title
    beginning, end = title[:BEGINNING].rpartition(" ")[0], title[-END:].partition(" ")[2]
    return f"{beginning} ... {end}"


def _style(axes: Axes, drawn: Sequence[Line]) -> None:
    axes.axvline(1, color=TEXT, linewidth=0.8)
    axes.set_yticks(range(len(drawn)), [_short(line.title) for line in drawn])
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.set_xscale("log")
    least = min(0.5, *(line.good.lower for line in drawn)) / 1.1
    most = max(2.0, *(line.good.upper for line in drawn)) * 1.1
    axes.set_xlim(least, most)
    steps = (1, 2, 5) if most / least < 1000 else (1,)
    ticks = [step * 10.0**power for power in range(-4, 6) for step in steps]
    ticks = [tick for tick in ticks if least <= tick <= most]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.tick_params(colors=TEXT, labelsize=8.5, length=0)
    axes.set_xlabel(
        "times as good as the best peer (median and quartiles, or all rounds)", fontsize=8.5, loc="left", color=TEXT
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(TEXT)
