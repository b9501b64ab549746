"""What is shown and what is kept: tables of plain text, and a JSON file with every figure of every round."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psycopg

from bench.comparison import Comparison, Metric, Ratio, Row

__all__ = ["environment", "save", "table"]

RESULTS = Path(__file__).with_name("results")

PACKAGES = ("pgpubsub", "psycopg", "psycopg-binary", "psycopg-c", "psycopg2-binary", "psycopg2", "PyGreSQL", "asyncpg")

COLUMNS = "  {:<34}{:>10}    {:<24}{:<24}{}"


def table(comparison: Comparison) -> str:
    """One metric, a line for each contestant."""
    metric = comparison.metric
    lines = [
        f"{metric.title} ({metric.unit}; {'more' if metric.more_is_better else 'less'} is better)",
        f"  A: {comparison.fastest}, the fastest raw loop.  B: {metric.same_driver}.",
        COLUMNS.format("", "median", "ratio to A (quartiles)", "ratio to B (quartiles)", _aim(metric)).rstrip(),
    ]
    lines.extend(_line(row) for row in comparison.rows)
    return "\n".join(lines) + "\n"


def _aim(metric: Metric) -> str:
    if metric.aim is None:
        return ""
    other = "A" if metric.aim.beside_fastest else "B"
    return f"aim: {'at least' if metric.more_is_better else 'at most'} {metric.aim.limit} {other}"


def _line(row: Row) -> str:
    middle = f"{row.median:,.0f}" if row.median >= 100 else f"{row.median:.2f}"
    verdict = {None: "", True: "met", False: "MISSED"}[row.met]
    ratios = map(_ratio, (row.beside_fastest, row.beside_same_driver))
    return COLUMNS.format(row.contestant, middle, *ratios, verdict).rstrip()


def _ratio(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} ({ratio.lower:.2f} to {ratio.upper:.2f})"


def environment(dsn: str) -> dict[str, Any]:
    """On what it was measured."""
    with psycopg.connect(dsn) as connection:
        server = connection.info.parameter_status("server_version")
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "server": server,
        "libpq of psycopg": f"{psycopg.pq.version()} ({psycopg.pq.__impl__})",
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "platform": platform.platform(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "load average": os.getloadavg(),
        "commit": _commit(),
    }


def save(result: Mapping[str, Any], *, quick: bool) -> Path:
    """Write it, and a copy under a name of its own. A quick run is no result: it leaves those alone."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=1)
    path = RESULTS / ("quick.json" if quick else "latest.json")
    path.write_text(text)
    if not quick:
        path.with_name(f"{datetime.now():%Y-%m-%dT%H%M%S}.json").write_text(text)
    return path


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit() -> str:
    try:
        command = ("git", "describe", "--always", "--dirty")
        return subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
