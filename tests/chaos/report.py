"""The figures of the last full campaign, in docs/reliability.md: `python -m tests.chaos --record` keeps them.

`python -m tests.chaos.report` writes them into the page anew.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from tests.chaos.campaign import Campaign
from tests.chaos.faults import FAULTS
from tests.reliability import Section

__all__ = ["SECTION", "record"]


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
    }
    SECTION.keep(server, figures)


def _survived(figures: dict[str, Any]) -> str:
    faults: dict[str, int] = figures["faults"]
    rows = "\n".join(f"| {inspect.getdoc(FAULTS[name][1])} | {faults.get(name, 0)} |" for name in FAULTS)
    gaps = ", ".join(f"{count:,} `{reason}`" for reason, count in figures["gaps"].items())
    return f"""
PostgreSQL {figures["server"]}, Python {figures["python"]}, psycopg {figures["driver"]}, commit {
        figures["commit"]
    }, seed {figures["seed"]}: **{sum(faults.values()):,} faults** in {figures["rounds"]:,} rounds, {
        figures["seconds"] / 60:.0f} minutes; {figures["committed"]:,} messages and entries committed, {
        figures["received"]:,} received; gaps told: {gaps}. Nothing
was lost in silence, and no entry was lost but by servers that were told not to wait for their standby.

| fault | survived |
|---|---|
{rows}

"""


SECTION = Section("figures", Path(__file__).with_name("survived.json"), _survived)

if __name__ == "__main__":
    SECTION.write()
