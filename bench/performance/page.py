"""docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.comparison import ITSELF, Comparison
from bench.parts import PARTS
from bench.peers.peer import everyone
from bench.performance.better import Aimed, aimed, better, cause
from bench.performance.results import Results
from bench.performance.words import about, anchor, goal, itself, spread, subject, times, title
from bench.table import figure, no_ratio

__all__ = ["page"]

HEAD = """# Performance

Made by `python -m bench.performance` of [bench/performance.json](../bench/performance.json); written by nobody.
{placeholder}
- **A ratio says how many times as good** pgpubsub is as somebody else: 2 is twice as many a second, or half as long, or
  half as much memory; less than 1 means that the other is better. Every ratio is of figures of the same round, in which
  all take turns in an order that is shuffled each time, so that whatever makes all of them slower at once cancels out.
  Printed is the median over the rounds, and the quartiles in parentheses; of fewer than five rounds, which have none,
  the lowest and the highest.
- **Where there is no ratio, none is told.** What cannot be told from nothing is no divisor: it is written as less than
  the least that can, and an aim is met if that would meet it. And the delay of who cannot keep up with a rate grows as
  long as messages are sent, so it says how long they were: that is so where half of the messages took longer than a
  quarter of that time, which is to carry less than about two thirds of them. Who keeps up meets an aim beside who does
  not, and the other way round misses it.
- **Absolute figures are of one machine**, with PostgreSQL, senders and receivers all on it, over TCP on the loopback
  interface. A p99 is worth less than a p50 there: what makes somebody wait now and then does not cancel out.
- **Everybody is used as its own manual has it**: [the peers](#the-peers) says which version, what of it is used, and
  which page recommends that; the code is in [bench/peers](../bench/peers). Beside them stand limits: PostgreSQL's own
  programs, which nobody's are quicker than at the same work.
- Not measured: reconnection, encryption, networks, and what a message does after it has been received.

To measure it yourself: `make bench`, for an hour, on a machine left alone; `make bench ARGS="--only hub"` for one part.
That keeps every figure, and prints the tables that stand in [the figures](performance-figures.md). A run waits up to
two minutes for the machine to be left alone, and says so if it is not.
"""

PLACEHOLDER = """
> **These figures are a placeholder**: {parts} come from a quick run, which shows that measuring works, and no more.
"""

BETTER = """
## Where a peer is better

By more than the spread: the quartiles of the ratio are on its side, too, or, of fewer than five rounds, all of them.
What took place in a single round has no spread, and is not told here.

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
        *[_part(name) for name in PARTS if name in results.parts],
        PEERS + "".join(_peers(results.environment["packages"])),
    ]
    return "\n".join(piece.strip("\n") + "\n" for piece in pieces)


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
        metric = one.comparison.metric
        peers = "; ".join(
            f"{row.label}{f' {spread(good)}' if good else ''}: {figure(metric, row)}" for row, good in one.peers
        )
        yield f"| {metric.title} ({metric.unit}) | {one.ours.label}: {figure(metric, one.ours)} | {peers} |\n"


def _aims(comparisons: Sequence[Comparison]) -> str:
    """Those that are missed, each with the number of its cause: many have the same."""
    all_of_them = list(aimed(comparisons))
    missed = [(one, cause(one) or "No cause is known yet.") for one in all_of_them if not one.met]
    numbers = {why: place for place, why in enumerate(dict.fromkeys(why for _, why in missed), 1)}
    met = len(all_of_them) - len(missed)
    lines = [
        "## Aims\n",
        f"{met} of {len(all_of_them)} are met. The others, each with the number of its cause:\n",
        "| what | | beside | times as good | aim | why |",
        "|---|---|---|---|---|---|",
        *[_missed(one, numbers[why]) for one, why in missed],
        "",
        *[f"{place}. {why}" for why, place in numbers.items()],
    ]
    return "\n".join(lines)


def _missed(one: Aimed, why: int) -> str:
    metric = one.comparison.metric
    if one.aim.beside == ITSELF:
        its = f"{figure(metric, one.row)} {metric.unit}"
        return f"| {metric.title} | {one.row.label} | | {its} | {itself(metric, one.aim.limit)} | {why} |"
    ratio = one.row.ratios.get(one.aim.beside)
    good = spread(metric.good(ratio)) if ratio else no_ratio(one.row, one.comparison.row(one.aim.beside))
    return f"| {metric.title} | {one.row.label} | {one.peer} | {good} | {times(goal(metric, one.aim.limit))} | {why} |"


def _part(name: str) -> str:
    _, _, text = about(name).partition("\n\n")
    heading = title(name)
    chart = f"![How many times as good as the best peer](images/performance-{name}.svg)"
    figures = f"[All figures](performance-figures.md#{anchor(heading)})."
    return f"## {heading}\n\n{subject(name)}\n\n{text}\n\n{chart}\n\n{figures}\n"


def _peers(found: Mapping[str, Any]) -> Iterator[str]:
    for peer in everyone():
        version = found.get(peer.name, "") if peer.version else "PostgreSQL's"
        differs = f", pinned to {peer.version}" if peer.version and version not in ("", peer.version) else ""
        cells = (peer.name, f"{version or 'absent'}{differs}", peer.uses, peer.manual, peer.absent)
        yield f"| {' | '.join(cells)} |\n"
