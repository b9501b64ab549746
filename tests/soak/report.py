"""The figures of the last soak that was recorded, in docs/reliability.md: `python -m tests.soak --record` keeps them.

`python -m tests.soak.report` writes them into the page anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.reliability import PAGE, Section
from tests.soak.lines import LINES, Line
from tests.soak.plot import plot
from tests.soak.run import Found
from tests.soak.verdict import watched

__all__ = ["SECTION", "record"]

PICTURE = PAGE.with_name("images") / "soak.png"

SENT = (
    "notify",
    "notify in a transaction",
    "notify, typed",
    "POST to a channel",
    "publish by WebSocket",
    "rows written",
)

SEVERAL = {"notify_many": 5, "notify_stream": 40, "append_many": 10}
"""Messages of each."""

APPENDED = ("append", "append a job", "append in a task", "append in a transaction", "POST to a stream")


def record(found: Found) -> None:
    """Keep what a run has shown, with its picture."""
    plot(found, PICTURE)
    done = found.done
    lines = {name: its for name in LINES if (its := found.growth(name)) is not None}
    figures = {
        "minutes": round(found.seconds / 60, 1),
        "sent": sum(done.get(name, 0) for name in SENT) + sum(done.get(name, 0) * by for name, by in SEVERAL.items()),
        "appended": sum(done.get(name, 0) for name in APPENDED),
        "handled": sum(count for name, count in done.items() if name.startswith("group, ") and name.count(",") == 1),
        "terminated": len(found.terminated),
        "lines": {
            name: {"begun": round(its.begun, 3), "ended": round(its.ended, 3), "hourly": round(its.hourly, 3)}
            for name, its in lines.items()
        },
    }
    SECTION.keep(found.server, figures)


def _words(figures: dict[str, Any]) -> str:
    hours = watched(60 * figures["minutes"]) / 3600
    minutes = f"{60 * hours:.0f}"
    rows = "\n".join(_row(LINES[name], its, hours) for name, its in figures["lines"].items())
    return f"""
PostgreSQL {figures["server"]}, Python {figures["python"]}, psycopg {figures["driver"]}: **{
        figures["minutes"]:g} minutes**,
{figures["sent"]:,} messages sent, {figures["appended"]:,} entries appended, {figures["handled"]:,} handled, {
        figures["terminated"]
    } backends
terminated. Nothing grew by more than its bound, and nothing was missing.

The slope is of the {minutes} minutes from the first interval after the warm-up to the last, and told for an hour. What
it came to in these minutes stands beside the bound for them.

| median of | the first quarter | the last | | slope, an hour | in this run | bound |
|---|---|---|---|---|---|---|
{rows}

![A panel for each line: memory, objects, threads, descriptors, connections, tables, latencies](images/soak.png)

"""


def _row(line: Line, its: dict[str, float], hours: float) -> str:
    levels = f"{number(its['begun'])} | {number(its['ended'])} | {line.unit}"
    grown, allowed = its["hourly"] * hours, line.bound.allows(its["begun"], hours)
    return f"| {line.title} | {levels} | {signed(its['hourly'])} | {signed(grown)} | {number(allowed)} |"


def number(value: float) -> str:
    """As it is read.

    >>> number(81234.2), number(81.26), number(0.021)
    ('81,234', '81.3', '0.02')
    """
    if value >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def signed(value: float) -> str:
    """The same of what goes up or down.

    >>> signed(5.34), signed(-1045.1), signed(0.0)
    ('+5.3', '-1,045', '0')
    """
    sign = "+" if value > 0 else "-" if value < 0 else ""
    return sign + number(abs(value))


SECTION = Section("soak", Path(__file__).with_name("figures.json"), _words)

if __name__ == "__main__":
    SECTION.write()
