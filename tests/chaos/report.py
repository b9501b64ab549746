"""The figures of the last full campaign, in docs/reliability.md: `python -m tests.chaos --record` keeps them.

`python -m tests.chaos.report` writes them into the page anew.
"""

from __future__ import annotations

import inspect
import json
import platform
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos.campaign import Campaign
from tests.chaos.faults import FAULTS
from tests.system.processes import ROOT

__all__ = ["PAGE", "page", "record"]

PAGE = ROOT / "docs" / "reliability.md"

FIGURES = Path(__file__).with_name("survived.json")

BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"


def page() -> str:
    """All of it, with the figures that are kept."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{before}{BEGIN}{_survived(json.loads(FIGURES.read_text()))}{END}{rest.partition(END)[2]}"


def record(campaign: Campaign, seed: int, server: str) -> None:
    """Keep a campaign's figures, and write them into the page."""
    its = campaign.ledger
    figures = {
        "seed": seed,
        "rounds": campaign.rounds,
        "seconds": round(campaign.seconds),
        "committed": its.committed,
        "received": its.received,
        "gaps": dict(sorted(its.gaps.items())),
        "faults": dict(sorted(campaign.faults.items())),
        "server": server,
        "python": platform.python_version(),
        "driver": psycopg.__version__,
    }
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    PAGE.write_text(page())


def _survived(figures: dict[str, Any]) -> str:
    faults: dict[str, int] = figures["faults"]
    rows = "\n".join(f"| {inspect.getdoc(FAULTS[name][1])} | {faults.get(name, 0)} |" for name in FAULTS)
    gaps = ", ".join(f"{count:,} `{reason}`" for reason, count in figures["gaps"].items())
    return f"""
PostgreSQL {figures["server"]}, Python {figures["python"]}, psycopg {figures["driver"]}, seed {figures["seed"]}: **{
        sum(faults.values()):,} faults** in {figures["rounds"]:,} rounds, {figures["seconds"] / 60:.0f} minutes; {
        figures["committed"]:,} messages and entries committed, {figures["received"]:,} received; gaps told: {
        gaps
    }. Nothing
was lost in silence, and no entry was lost.

| fault | survived |
|---|---|
{rows}

"""


if __name__ == "__main__":
    PAGE.write_text(page())
