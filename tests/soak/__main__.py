"""`python -m tests.soak`: see the package."""

from __future__ import annotations

import json
import sys
import tempfile
from argparse import SUPPRESS, ArgumentParser
from dataclasses import asdict
from pathlib import Path

from tests.soak.lines import LINES
from tests.soak.plot import plot
from tests.soak.report import record
from tests.soak.run import Found, run
from tests.system.processes import ROOT

PICTURES = ROOT / "build" / "soak"


def main() -> int:
    parser = ArgumentParser(prog="python -m tests.soak", description="Everything at once, for long: what grows?")
    parser.add_argument("--minutes", type=float, default=30, help="how long (default: %(default)s)")
    parser.add_argument("--hours", type=float, help="the same in hours")
    parser.add_argument("--record", action="store_true", help="write docs/reliability.md anew, with the picture")
    parser.add_argument("--leak", choices=["memory", "descriptors"], default="", help=SUPPRESS)
    options = parser.parse_args()
    seconds = options.hours * 3600 if options.hours is not None else options.minutes * 60
    if seconds <= 0:
        parser.error("it takes some time")
    with tempfile.TemporaryDirectory(prefix="pgpubsub-soak-") as directory:
        found = run(seconds, Path(directory), options.leak)
    show(found)
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / "soak.json").write_text(json.dumps(asdict(found)))
    print(f"see {plot(found, PICTURES / 'soak.png')}; soak.json beside it has all samples")
    verdict = found.verdict()
    if verdict:
        print("\n".join(["", *verdict]))
        return 1
    print("nothing grows, and all was delivered")
    if options.record:
        record(found)
    return 0


def show(found: Found) -> None:
    """What was done, and each line in figures."""
    for name, count in sorted(found.done.items()):
        print(f"{count:>10,} {name}")
    print(f"{len(found.terminated):>10,} backends terminated\n")
    print(f"{'':<38}{'at first':>12}{'at last':>12}{'an hour':>12}{'grown':>12}{'allowed':>12}")
    for name, line in LINES.items():
        if its := found.growth(name):
            figures = (its.begun, its.ended, its.hourly, its.grown, its.allowed)
            row = "".join(f"{figure:>12,.1f}" for figure in figures)
            print(f"{line.title:<38}{row} {line.unit}{'  GROWS' if its.grows else ''}")


if __name__ == "__main__":
    sys.exit(main())
