"""What is shown: a table of plain text for each metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from bench.comparison import ENOUGH, FASTEST, ITSELF, Aim, Comparison, Metric, Row, Spread

__all__ = ["figure", "no_ratio", "number", "ratio", "spread_of", "summary", "table"]

NAME, FIGURE, SPREAD, RATIO = 38, 16, 32, 26
"""Widths of the columns."""

BEHIND = "cannot keep up"
NOTHING = "none to be measured"


def table(comparison: Comparison) -> str:
    """One metric, a line for each contestant."""
    metric = comparison.metric
    beside = [peer for peer in metric.beside if any(peer in row.ratios for row in comparison.rows)]
    letters = dict(zip(beside, "ABCDEFGH", strict=False))
    lines = [f"{metric.title} ({metric.unit}; {'more' if metric.more_is_better else 'less'} is better)"]
    if beside:
        fastest = f"{comparison.label(FASTEST)}, {FASTEST}"
        named = [f"{letter}: {fastest if peer == FASTEST else peer}" for peer, letter in letters.items()]
        lines.append("  " + "   ".join(named))
    headings = [f"to {letter}{_aim(metric, peer)}" for peer, letter in letters.items()]
    wide = any(aim.beside == ITSELF for aim in metric.aims)
    lines.append(_columns("", f"median{_aim(metric, ITSELF)}", headings, wide=wide))
    lines.extend(_line(comparison, row, beside, wide=wide) for row in comparison.rows)
    return "\n".join(lines) + "\n"


def summary(comparisons: Sequence[Comparison]) -> str:
    """All aims, a line for each: what it is about, ours, beside whom, how many times as much, the aim, the verdict."""
    lines = ["All aims", _in_summary("ours", "", "beside", "", "ratio", "aim", "")]
    for comparison in comparisons:
        metric = comparison.metric
        aims = [(row, aim) for row in comparison.rows for aim in metric.aims if aim.beside in row.met]
        if aims:
            lines.append(f"  {metric.title} ({metric.unit})")
        lines += [_in_summary(*_aimed(comparison, row, aim)) for row, aim in aims]
    return "\n".join(lines) + "\n"


def _aimed(comparison: Comparison, row: Row, aim: Aim) -> tuple[str, ...]:
    figures = {one.label: figure(comparison.metric, one) for one in comparison.rows}
    ours, goal = figures[row.label], _aim(comparison.metric, aim.beside).removeprefix(", aim ")
    verdict = _verdict(row, aim.beside).strip()
    if aim.beside == ITSELF:
        return row.label, ours, "", "", "", goal, verdict
    peer = comparison.label(aim.beside)
    if aim.beside not in row.ratios:
        return row.label, ours, peer, figures[peer], "none", goal, verdict
    median = row.ratios[aim.beside].median
    return row.label, ours, peer, figures[peer], _ratio_like(median)(median), goal, verdict


def _in_summary(*cells: str) -> str:
    widths = (34, 11, 36, 11, 8, 11, 0)
    return "    " + "".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def number(value: float) -> str:
    """As one reads it.

    >>> number(123456.7), number(12.345), number(0.012345)
    ('123,457', '12.3', '0.0123')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio(value: float, *, inverted: bool = False) -> str:
    """As one reads it; a small one as a fraction.

    >>> ratio(1.234), ratio(12.34), ratio(0.0123, inverted=True)
    ('1.23', '12.3', '1/81.3')
    """
    if inverted:
        return f"1/{number(1 / value)}"
    return f"{value:.2f}" if value < 10 else number(value)


def figure(metric: Metric, row: Row) -> str:
    """The median; or that there is none that says anything."""
    if row.behind:
        return BEHIND
    return f"less than {number(metric.least)}" if row.figure.median < metric.least else number(row.figure.median)


def no_ratio(one: Row, other: Row | None) -> str:
    """Why there is none between two."""
    return BEHIND if one.behind or (other and other.behind) else NOTHING


def spread_of(rounds: int) -> str:
    """What stands beside a median."""
    return "quartiles" if rounds >= ENOUGH else "lowest and highest"


def _aim(metric: Metric, peer: str) -> str:
    sign = ">=" if metric.more_is_better else "<="
    aims = [aim.limit for aim in metric.aims if aim.beside == peer]
    show = number if peer == ITSELF else _ratio_like(min(aims, default=1))
    return "".join(f", aim {sign} {show(limit)}" for limit in aims)


def _ratio_like(value: float) -> Callable[[float], str]:
    return partial(ratio, inverted=value < 0.1)


def _line(comparison: Comparison, row: Row, beside: Sequence[str], *, wide: bool) -> str:
    told = figure(comparison.metric, row)
    if wide and told == number(row.figure.median):
        told = _spread(row.figure, number)
    ratios = [_told(comparison, row, peer) + _verdict(row, peer) for peer in beside]
    return _columns(row.label, told + _verdict(row, ITSELF), ratios, wide=wide)


def _told(comparison: Comparison, row: Row, peer: str) -> str:
    if peer not in row.ratios:
        return no_ratio(row, comparison.row(peer))
    return _spread(row.ratios[peer], _ratio_like(row.ratios[peer].median))


def _spread(spread: Spread, show: Callable[[float], str]) -> str:
    return f"{show(spread.median)} ({show(spread.lower)}-{show(spread.upper)})"


def _verdict(row: Row, peer: str) -> str:
    return {None: "", True: " met", False: " MISSED"}[row.met.get(peer)]


def _columns(name: str, figure: str, ratios: Sequence[str], *, wide: bool) -> str:
    return (
        f"  {name:<{NAME}}{figure:<{SPREAD if wide else FIGURE}}" + "".join(f"{one:<{RATIO}}" for one in ratios)
    ).rstrip()
