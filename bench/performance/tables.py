"""docs/performance-figures.md: a table for each metric."""

from __future__ import annotations

from bench.comparison import FASTEST, ITSELF, Comparison, Metric, Row
from bench.contestants import Role
from bench.parts import PARTS
from bench.performance.results import Results
from bench.performance.words import anchor, goal, itself, spread, times, title
from bench.table import figure, no_ratio, number, spread_of

__all__ = ["tables"]

HEAD = """# The figures behind Performance

Made by `python -m bench.performance` of [bench/performance.json](../bench/performance.json). What is measured, on what
machine, and what to make of it stands in [Performance](performance.md). A row for each, a column for each of ours:
how many times as good it is as who stands in the row, in the same round; the median over the rounds, and the quartiles,
or, of fewer than five rounds, the lowest and the highest.
"""


def tables(results: Results) -> str:
    """The page."""
    pieces = [HEAD]
    for name in PARTS:
        if name in results.parts:
            heading = title(name)
            pieces.append(f"## {heading}\n\n[What is measured](performance.md#{anchor(heading)}).\n")
            pieces.extend(map(_table, results.parts[name].comparisons))
    return "\n".join(pieces)


def _table(comparison: Comparison) -> str:
    """A column for each of ours, a row for each whom they are beside."""
    metric = comparison.metric
    divided = any(_is_divided_by(comparison, row) for row in comparison.rows)
    subjects = [row for row in comparison.rows if row.role is Role.SUBJECT and divided]
    heads = [f"times as good: {row.label}" for row in subjects]
    better = "more" if metric.more_is_better else "less"
    lines = [
        f"**{metric.title}** ({metric.unit}, {better} is better; {_rounds(comparison.rounds)})\n",
        "| " + " | ".join(["", *heads, "median", spread_of(comparison.rounds)]) + " |",
        "|---" * (len(heads) + 3) + "|",
    ]
    for row in comparison.rows:
        label = f"**{row.label}**" if row.role is Role.SUBJECT else row.label
        cells = [_cell(comparison, subject, row) for subject in subjects]
        its = [figure(metric, row) + _verdict(row, ITSELF), _range(metric, row)]
        lines.append(f"| {' | '.join([label + _remark(comparison, row), *cells, *its])} |")
    if aims := _told_aims(comparison):
        lines.append(f"\nAims: {aims}.")
    return "\n".join(lines) + "\n"


def _is_divided_by(comparison: Comparison, row: Row) -> bool:
    return row.role in (Role.PEER, Role.LIMIT) or row.contestant in comparison.metric.beside


def _range(metric: Metric, row: Row) -> str:
    if row.behind or row.figure.upper < metric.least:
        return ""
    if row.figure.median < metric.least:
        return f"up to {number(row.figure.upper)}"
    return f"{number(max(row.figure.lower, 0))} to {number(row.figure.upper)}"


def _cell(comparison: Comparison, subject: Row, row: Row) -> str:
    if not _is_divided_by(comparison, row) or row is subject:
        return ""
    verdicts = _verdict(subject, row.contestant)
    if row.contestant == comparison.fastest:
        verdicts = verdicts or _verdict(subject, FASTEST)
    if row.contestant not in subject.ratios:
        return f"{no_ratio(subject, row)}{':' if verdicts else ''}{verdicts}"
    return spread(comparison.metric.good(subject.ratios[row.contestant])) + verdicts


def _remark(comparison: Comparison, row: Row) -> str:
    if row.contestant == comparison.fastest:
        return " (the fastest peer)"
    return {Role.LIMIT: " (the limit)", Role.EXTRA: " (for information)"}.get(row.role, "")


def _told_aims(comparison: Comparison) -> str:
    metric = comparison.metric
    told = []
    for aim in metric.aims:
        if aim.beside == ITSELF:
            told.append(f"{itself(metric, aim.limit)} {metric.unit}")
        elif any(aim.beside in row.met for row in comparison.rows):
            told.append(f"{times(goal(metric, aim.limit))} times as good as {comparison.label(aim.beside)}")
    return ", ".join(told)


def _verdict(row: Row, peer: str) -> str:
    return {None: "", True: " met", False: " **missed**"}[row.met.get(peer)]


def _rounds(number: int) -> str:
    return f"{number} rounds" if number > 1 else "1 round"
