"""A picture of a run: a panel for each line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.soak.lines import LATENCIES, LINES
from tests.soak.verdict import medians

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tests.soak.run import Found

__all__ = ["plot"]

BLUE, PALE, GREY, RED, DARK = "#1f6fb4", "#a8c8e4", "#9aa5ad", "#c1121f", "#333333"

COLUMNS = 4

SPACE = 0.35
"""Of a panel, above and below what is drawn at least: a line that is constant shall look so."""


def plot(found: Found, path: Path) -> Path:
    """Draw it. The warm-up is grey, terminated backends are ticks below, and medians are dots."""
    from matplotlib.figure import Figure

    panels = [name for name in LINES if not name.endswith("p99")]
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(16, 2.5 * rows + 0.9), layout="constrained")
    figure.suptitle(f"{_time(found.seconds)} of everything at once, in one process", fontsize=13)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for number, axes in enumerate(grid.flat):
        if number < len(panels):
            _draw(axes, found, panels[number])
        else:
            axes.set_visible(False)
    figure.supxlabel(
        "minutes; pale: samples; dots: medians of intervals, which the verdict is made of; grey: the warm-up;"
        " ticks: a terminated backend",
        fontsize=9,
    )
    figure.savefig(path, dpi=100)
    return path


def _draw(axes: Axes, found: Found, name: str) -> None:
    kind = name.removesuffix(" p50")
    line = LINES[name]
    title = f"{LATENCIES[kind]}: p50, p99" if kind in LATENCIES else line.title
    axes.set_title(f"{title}, {line.unit}" if line.unit else title, fontsize=10, loc="left", fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=DARK)
    axes.axvspan(0, found.warm_up / 60, color=GREY, alpha=0.2, linewidth=0)
    shown = [name, f"{kind} p99"] if kind in LATENCIES else [name]
    for its in shown:
        _draw_line(axes, found.lines.get(its, ()), found, its)
    if kind in LATENCIES:
        axes.set_yscale("log")
    else:
        _widen(axes, [value for second, value in found.lines.get(name, ()) if second >= found.warm_up])
    for second in found.terminated:
        axes.axvline(second / 60, ymax=0.04, color=DARK, linewidth=0.8)
    axes.set_xlim(0, found.seconds / 60)


def _draw_line(axes: Axes, line: Sequence[tuple[float, float]], found: Found, name: str) -> None:
    growth = found.growth(name)
    color = RED if growth is not None and growth.grows else BLUE
    axes.plot([second / 60 for second, _ in line], [value for _, value in line], color=PALE, linewidth=0.8)
    points = medians([(second, value) for second, value in line if second >= found.warm_up])
    axes.plot([second / 60 for second, _ in points], [value for _, value in points], ".-", color=color, linewidth=1)


def _widen(axes: Axes, values: Sequence[float]) -> None:
    """So that what is constant looks so, and what grows by a third fills the panel."""
    if values:
        lowest, highest = min(values), max(values)
        room = max(highest * SPACE, 1.0 if highest >= 1 else 0.1)
        axes.set_ylim(max(0.0, lowest - room), highest + room)


def _time(seconds: float) -> str:
    return f"{seconds / 3600:g} hours" if seconds >= 7200 else f"{seconds / 60:g} minutes"
