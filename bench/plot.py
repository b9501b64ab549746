"""Pictures of the comparisons: first the ratios and the aims, then the figures themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from bench.comparison import FASTEST, ITSELF, Aim, Comparison, Row, Spread
from bench.contestants import Role
from bench.table import number, spread_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot"]

SUBJECTS = ("#1f6fb4", "#e07b00", "#7a4fb5")
GREY, DARK, RED, GREEN = "#9aa5ad", "#333333", "#c1121f", "#dcefdc"
ROW = 0.36
"""Inches for a row."""

Draw = Callable[["Axes", Comparison], None]


def plot(comparisons: Sequence[Comparison], beside: Path, *, only_ratios: bool) -> list[Path]:
    """Draw the pictures of each part beside its JSON; none when there is no matplotlib."""
    try:
        import matplotlib.figure as _  # noqa: F401
    except ImportError as error:
        print(f"no pictures ({error})")
        return []
    pictures = []
    for part in dict.fromkeys(comparison.metric.part for comparison in comparisons):
        own = [one for one in comparisons if one.metric.part == part]
        for kind, draw, title in KINDS[: 1 if only_ratios else None]:
            path = beside.with_name(f"{beside.stem}-{part}-{kind}.png")
            _picture(own, draw, title).savefig(path, dpi=110)
            pictures.append(path)
    return pictures


def _picture(comparisons: Sequence[Comparison], draw: Draw, title: str) -> Figure:
    """Two columns of panels, as high as the panels need."""
    from matplotlib.figure import Figure

    pairs = [comparisons[start : start + 2] for start in range(0, len(comparisons), 2)]
    heights = [1.25 + ROW * max(_rows(comparison, draw) for comparison in pair) for pair in pairs]
    figure = Figure(figsize=(16, 0.6 + sum(heights)), layout="constrained")
    figure.suptitle(title, fontsize=13)
    grid = figure.add_gridspec(len(pairs), 2, height_ratios=heights)
    for line, pair in enumerate(pairs):
        for column, comparison in enumerate(pair):
            axes = figure.add_subplot(grid[line, column])
            axes.set_title(fill(comparison.metric.title, 56), fontsize=11, loc="left", fontweight="bold")
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(axis="y", length=0)
            draw(axes, comparison)
    return figure


def _rows(comparison: Comparison, draw: Draw) -> int:
    if draw is _draw_figures or not _has_ratios(comparison):
        return len(comparison.rows)
    return len(comparison.metric.beside) * len(_subjects(comparison))


def _has_ratios(comparison: Comparison) -> bool:
    told = any(peer in row.ratios for peer in comparison.metric.beside for row in _subjects(comparison))
    return told and not _own_aims(comparison)


def _own_aims(comparison: Comparison) -> list[Aim]:
    return [aim for aim in comparison.metric.aims if aim.beside == ITSELF]


def _subjects(comparison: Comparison) -> list[Row]:
    return [row for row in comparison.rows if row.role is Role.SUBJECT]


def _draw_ratios(axes: Axes, comparison: Comparison) -> None:
    """How many times as good pgpubsub is as each peer; a figure that has no peer as it is."""
    metric, subjects = comparison.metric, _subjects(comparison)
    if not _has_ratios(comparison):
        _draw_figures(axes, comparison)
        return
    colors = _colors(subjects)
    peers = [peer for peer in metric.beside if any(peer in row.ratios for row in subjects)]
    ends = [1.0]
    for line, peer in enumerate(peers):
        for index, row in enumerate(subjects):
            if peer not in row.ratios:
                continue
            at = line + (index - (len(subjects) - 1) / 2) * 0.8 / len(subjects)
            goodness = metric.good(row.ratios[peer])
            missed = row.met.get(peer) is False
            _dot(axes, goodness, at, colors[row.contestant], missed=missed)
            ends += [goodness.lower, goodness.upper]
        for aim in metric.aims:
            if aim.beside == peer:
                goal = aim.limit if metric.more_is_better else 1 / aim.limit
                axes.barh(line, 1e6, left=goal, height=0.9, color=GREEN, zorder=0)
                axes.plot([goal, goal], [line - 0.45, line + 0.45], color="#3a8f3a", linewidth=1.5, zorder=1)
                ends.append(goal)
    fastest = {FASTEST: f"{comparison.label(FASTEST)},\n{FASTEST}"}
    axes.set_yticks(range(len(peers)), [fill(f"beside {fastest.get(peer, peer)}", 34) for peer in peers])
    axes.set_ylim(len(peers) - 0.5, -0.5)
    axes.axvline(1, color=DARK, linewidth=0.8, zorder=1)
    _logarithmic(axes, min(ends) / 1.15, max(ends) * (max(ends) / min(ends)) ** 0.35 * 1.15)
    axes.set_xlabel("times as good", fontsize=9, loc="left")
    right = 0.0
    for name, color in reversed(colors.items()):
        axes.annotate(
            f"● {name}", (1, 0), (right, -33), "axes fraction", "offset points", ha="right", fontsize=9, color=color
        )
        right -= 5 * len(name) + 25


def _draw_figures(axes: Axes, comparison: Comparison) -> None:
    """Everybody's figures, with a line for an aim that is not a ratio."""
    metric = comparison.metric
    colors = _colors(_subjects(comparison))
    for line, row in enumerate(comparison.rows):
        color = colors.get(row.contestant, DARK if row.role is Role.PEER else GREY)
        missed = row.met.get(ITSELF) is False
        axes.barh(line, row.figure.median, height=0.62, color=color, alpha=0.85)
        axes.plot([row.figure.lower, row.figure.upper], [line, line], color="black", linewidth=1.2)
        text = f"{number(row.figure.median)}{' MISSED' if missed else ''}"
        _label(axes, text, (row.figure.upper, line), missed=missed)
    most = max([row.figure.upper for row in comparison.rows] + [aim.limit for aim in _own_aims(comparison)])
    for aim in _own_aims(comparison):
        axes.axvline(aim.limit, color="#3a8f3a", linewidth=1.5)
        axes.annotate("aim ", (aim.limit, -0.6), ha="right", va="top", fontsize=9, color="#3a8f3a")
    axes.set_xlim(0, most * 1.2 or 1)
    axes.locator_params(axis="x", nbins=7)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1000 else f"{value:g}")
    axes.set_yticks(range(len(comparison.rows)), [row.label for row in comparison.rows])
    axes.set_ylim(len(comparison.rows) - 0.4, -0.6)
    better = "more" if metric.more_is_better else "less"
    axes.set_xlabel(
        f"{metric.unit} ({better} is better; median and {spread_of(comparison.rounds)})", fontsize=9, loc="left"
    )


def _colors(subjects: Sequence[Row]) -> dict[str, str]:
    """By name; the same for the same class."""
    classes = list(dict.fromkeys(row.contestant.partition(",")[0] for row in subjects))
    return {row.contestant: SUBJECTS[classes.index(row.contestant.partition(",")[0])] for row in subjects}


def _dot(axes: Axes, spread: Spread, at: float, color: str, *, missed: bool) -> None:
    axes.plot([spread.lower, spread.upper], [at, at], color=color, linewidth=2.5, alpha=0.6, zorder=2)
    axes.plot(spread.median, at, "o", color=color, markersize=7, zorder=3)
    value = f"{spread.median:.2f}" if spread.median < 10 else number(spread.median)
    _label(axes, f"{value} MISSED" if missed else value, (spread.upper, at), missed=missed)


def _label(axes: Axes, text: str, at: tuple[float, float], *, missed: bool) -> None:
    color, weight = (RED, "bold") if missed else (DARK, "normal")
    axes.annotate(
        text, at, (9, 0), textcoords="offset points", va="center", fontsize=9, color=color, fontweight=weight, zorder=4
    )


def _logarithmic(axes: Axes, lower: float, upper: float) -> None:
    axes.set_xscale("log")
    axes.set_xlim(lower, upper)
    if upper / lower > 8:
        ticks = [step * 10.0**power for power in range(-4, 5) for step in (1, 2, 5)]
    else:
        step = next(step for step in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 50) if (upper - lower) / step < 9)
        ticks = [step * times for times in range(1, 200)]
    ticks = [tick for tick in ticks if lower <= tick <= upper]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)


KINDS: tuple[tuple[str, Draw, str], ...] = (
    (
        "ratios",
        _draw_ratios,
        "How many times as good as each peer: medians and quartiles (of fewer than 5 rounds, all); green: the aim",
    ),
    (
        "figures",
        _draw_figures,
        "Medians and quartiles over the rounds (of fewer than 5, all); coloured: pgpubsub; light grey: for information",
    ),
)
