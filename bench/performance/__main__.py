"""`python -m bench.performance [FILE ...]`: see the package."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path

from bench.performance.charts import DIRECTORY, draw
from bench.performance.page import page
from bench.performance.results import FILE, condense, load, store
from bench.performance.tables import tables

PAGE = DIRECTORY.parent / "performance.md"
TABLES = DIRECTORY.parent / "performance-figures.md"


def main() -> None:
    parser = ArgumentParser(prog="python -m bench.performance", description="Make docs/performance.md.")
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="a run's JSON, in bench/results, to be kept in bench/performance.json, in place of the parts that it has",
    )
    parser.add_argument("--anew", action="store_true", help="keep nothing of what was in that file before")
    options = parser.parse_args()
    if options.anew and not options.files:
        parser.error("--anew goes with files of runs")
    if options.files:
        before = None if options.anew or not FILE.exists() else json.loads(FILE.read_text())
        store(condense([json.loads(file.read_text()) for file in options.files], before))
        print(f"kept: {FILE}")
    results = load()
    PAGE.write_text(page(results))
    TABLES.write_text(tables(results))
    print(f"the pages: {PAGE}, {TABLES}")
    for chart in draw(results):
        print(f"a chart: {chart}")


if __name__ == "__main__":
    main()
