"""docs/performance.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from inspect import getdoc
from typing import Any

from bench.comparison import FASTEST, ITSELF, Comparison, Metric, Row, Spread
from bench.contestants import Role
from bench.parts import PARTS
from bench.peers.peer import everyone
from bench.performance.better import Aimed, aimed, better, cause
from bench.performance.results import PartResult, Results
from bench.table import number, ratio

__all__ = ["anchor", "page", "title"]

HEAD = """# Performance

Made by `python -m bench.performance` of [bench/performance.json](../bench/performance.json); written by nobody.
{placeholder}
- **A ratio says how many times as good** pgpubsub is as somebody else: 2 is twice as many a second, or half as long, or
  half as much memory; less than 1 means that the other is better. Every ratio is of figures of the same round, in which
  all take turns in an order that is shuffled each time, so that whatever makes all of them slower at once cancels out.
  Printed is the median over the rounds, and the quartiles in parentheses.
- **Absolute figures are of one machine**, with PostgreSQL, senders and receivers all on it, over TCP on the loopback
  interface. A p99 is worth less than a p50 there: what makes somebody wait now and then does not cancel out.
- **Everybody is used as its own manual has it**: [the peers](#the-peers) says which version, what of it is used, and
  which page recommends that; the code is in [bench/peers](../bench/peers). Beside them stand limits: PostgreSQL's own
  programs, which nobody's are quicker than at the same work.
- Not measured: reconnection, encryption, networks, and what a message does after it has been received.

To measure it yourself: `make bench`, for an hour, on a machine left alone; `make bench ARGS="--only hub"` for one part.
That prints the same tables, and keeps every figure.
"""

PLACEHOLDER = """
> **These figures are a placeholder**: {parts} come from a quick run, which shows that measuring works, and no more.
"""

BETTER = """
## Where a peer is better

By more than the spread: the quartiles of the ratio are on its side, too. What took place in a single round has no
spread, and is not told here.

| what | ours | better |
|---|---|---|
"""

PEERS = """
## The peers

| | version | what is used | as recommended in | takes no part in |
|---|---|---|---|---|
"""


def page(results: Results) -> str:
    """All of it."""
    quick = [name for name, part in results.parts.items() if part.run["kind"] == "quick"]
    placeholder = PLACEHOLDER.format(parts="all parts" if len(quick) == len(results.parts) else ", ".join(quick))
    comparisons = [one for part in results.parts.values() for one in part.comparisons]
    pieces = [
        HEAD.format(placeholder=placeholder if quick else ""),
        _machine(results),
        BETTER + "".join(_better(comparisons)),
        _aims(comparisons),
        *[_part(name, results.parts[name]) for name in PARTS if name in results.parts],
        PEERS + "".join(_peers(results.environment["packages"])),
    ]
    return "\n".join(piece.strip("\n") + "\n" for piece in pieces)


def title(name: str) -> str:
    """Of a part: what it is about, in a few words."""
    return re.split("[:,]", _subject(name))[0]


def _subject(name: str) -> str:
    first, _, _ = _about(name).partition("\n\n")
    return _sentence(first.replace("\n", " ").removeprefix("The part about "))


def _about(name: str) -> str:
    return getdoc(PARTS[name]) or ""


def _machine(results: Results) -> str:
    environment = results.environment
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    lines = [
        "## The machine and the versions\n",
        f"- {environment['processor']}, {environment['processors']} processors, {environment['memory, GiB']} GiB;"
        f" {environment['system']}; {environment['server']}; {environment['python']}",
        f"- psycopg with libpq {environment['libpq of psycopg']}; in C, libpq {environment['libpq in C']};"
        f" {environment['pgbench']}",
        f"- {packages}\n",
        "| part | rounds | took | on | at commit | to be said against it |",
        "|---|---|---|---|---|---|",
    ]
    for name, part in results.parts.items():
        rounds = sorted({comparison.rounds for comparison in part.comparisons})
        run = part.run
        against = [*run["warnings"], *(f"{one} failed: {error}" for one, error in run["failures"].items())]
        lines.append(
            f"| [{name}](#{anchor(title(name))}) | {'-'.join(map(str, {rounds[0]: 0, rounds[-1]: 0}))} |"
            f" {run['seconds']:,} s | {run['date']} | {run['commit']} | {'; '.join(against)} |"
        )
    return "\n".join(lines)


def _better(comparisons: Sequence[Comparison]) -> Iterator[str]:
    for one in better(comparisons):
        peers = "; ".join(f"{row.label} {_spread(times)}: {number(row.figure.median)}" for row, times in one.peers)
        metric = one.comparison.metric
        yield f"| {metric.title} ({metric.unit}) | {one.ours.label}: {number(one.ours.figure.median)} | {peers} |\n"


def _aims(comparisons: Sequence[Comparison]) -> str:
    all_of_them = list(aimed(comparisons))
    missed = [one for one in all_of_them if not one.met]
    lines = [
        "## Aims\n",
        f"{len(all_of_them) - len(missed)} of {len(all_of_them)} are met. Each of the others, and why:\n",
        "| what | | beside | times as good | aim | why |",
        "|---|---|---|---|---|---|",
    ]
    for one in missed:
        lines.append(_missed(one))
    return "\n".join(lines)


def _missed(one: Aimed) -> str:
    metric, why = one.comparison.metric, cause(one) or "No cause is known yet."
    if one.aim.beside == ITSELF:
        figure = f"{number(one.row.figure.median)} {metric.unit}"
        return f"| {metric.title} | {one.row.label} | | {figure} | {_itself(metric, one.aim.limit)} | {why} |"
    times = _spread(metric.good(one.row.ratios[one.aim.beside]))
    return (
        f"| {metric.title} | {one.row.label} | {one.peer} | {times} | {_times(_goal(metric, one.aim.limit))} | {why} |"
    )


def _part(name: str, part: PartResult) -> str:
    _, _, text = _about(name).partition("\n\n")
    chart = f"![How many times as good as the best peer](images/performance-{name}.svg)"
    head = f"## {title(name)}\n\n{_subject(name)}\n\n{text}\n\n{chart}\n"
    return "\n".join([head, *map(_table, part.comparisons)])


def _table(comparison: Comparison) -> str:
    """A column for each of ours, a row for each whom they are beside."""
    metric = comparison.metric
    subjects = [row for row in comparison.rows if row.role is Role.SUBJECT and row.ratios]
    heads = [f"times as good: {row.label}" for row in subjects]
    better = "more" if metric.more_is_better else "less"
    lines = [
        f"**{metric.title}** ({metric.unit}, {better} is better; {_rounds(comparison.rounds)})\n",
        "| " + " | ".join(["", *heads, "median", "quartiles"]) + " |",
        "|---" * (len(heads) + 3) + "|",
    ]
    for row in comparison.rows:
        label = f"**{row.label}**" if row.role is Role.SUBJECT else row.label
        cells = [_cell(comparison, subject, row) for subject in subjects]
        figure = number(row.figure.median) + _verdict(row, ITSELF)
        quartiles = f"{number(row.figure.lower)} to {number(row.figure.upper)}"
        lines.append(f"| {' | '.join([label + _remark(comparison, row), *cells, figure, quartiles])} |")
    if aims := _told_aims(comparison):
        lines.append(f"\nAims: {aims}.")
    return "\n".join(lines) + "\n"


def _cell(comparison: Comparison, subject: Row, row: Row) -> str:
    if row.role is Role.SUBJECT or row.contestant not in subject.ratios:
        return ""
    verdicts = _verdict(subject, row.contestant)
    if row.contestant == comparison.fastest:
        verdicts = verdicts or _verdict(subject, FASTEST)
    return _spread(comparison.metric.good(subject.ratios[row.contestant])) + verdicts


def _remark(comparison: Comparison, row: Row) -> str:
    if row.contestant == comparison.fastest:
        return " (the fastest peer)"
    return {Role.LIMIT: " (the limit)", Role.EXTRA: " (for information)"}.get(row.role, "")


def _told_aims(comparison: Comparison) -> str:
    metric = comparison.metric
    told = []
    for aim in metric.aims:
        if aim.beside == ITSELF:
            told.append(f"{_itself(metric, aim.limit)} {metric.unit}")
        elif any(aim.beside in row.met for row in comparison.rows):
            told.append(f"{_times(_goal(metric, aim.limit))} times as good as {comparison.label(aim.beside)}")
    return ", ".join(told)


def _itself(metric: Metric, limit: float) -> str:
    return f"{'at least' if metric.more_is_better else 'at most'} {number(limit)}"


def _goal(metric: Metric, limit: float) -> float:
    return limit if metric.more_is_better else 1 / limit


def _verdict(row: Row, peer: str) -> str:
    return {None: "", True: " met", False: " **missed**"}[row.met.get(peer)]


def _rounds(number: int) -> str:
    return f"{number} rounds" if number > 1 else "1 round"


def _spread(spread: Spread) -> str:
    return f"{_times(spread.median)} ({_times(spread.lower)} to {_times(spread.upper)})"


def _times(value: float) -> str:
    return ratio(value, inverted=value < 0.1)


def _peers(found: Mapping[str, Any]) -> Iterator[str]:
    for peer in everyone():
        version = found.get(peer.name, "") if peer.version else "PostgreSQL's"
        differs = f", pinned to {peer.version}" if peer.version and version not in ("", peer.version) else ""
        cells = (peer.name, f"{version or 'absent'}{differs}", peer.uses, peer.manual, peer.absent)
        yield f"| {' | '.join(cells)} |\n"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    kept = [letter for letter in heading.lower() if letter.isalnum() or letter in " -_"]
    return "".join(kept).replace(" ", "-")
