"""What is kept: a JSON file with every figure of every round, and on what it was measured."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psycopg

from bench import pins
from bench.peers import libpq, pgbench
from bench.revision import revision

__all__ = ["await_quiet", "environment", "save"]

RESULTS = Path(__file__).with_name("results")

QUIET = 0.25
"""Load for each processor up to which a machine counts as left alone."""

PATIENCE = 120.0
"""Seconds for which a run waits until it is: what ran right before this, such as another part, is in the load of the
last minute, and has left it after two."""

PAUSE = 2.0

BESIDES = ("pgpubsub", "psycopg-binary", "msgspec", "starlette", "uvicorn", "httptools", "Django", "channels", "redis")
"""Packages that matter and are not pinned."""


def environment(dsn: str) -> dict[str, Any]:
    """On what it is measured, and what is to be said against it."""
    with psycopg.connect(dsn) as connection:
        server = connection.info.parameter_status("server_version")
    load = os.getloadavg()
    return {
        "date": f"{date.today()}",
        "commit": revision(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory, GiB": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "server": f"PostgreSQL {server}",
        "libpq of psycopg": f"{libpq.told(psycopg.pq.version())} ({psycopg.pq.__impl__})",
        "libpq in C": libpq.version(),
        "pgbench": pgbench.version(),
        "packages": {name: there for name in (*pins.pinned(), *BESIDES) if (there := pins.found(name))},
        "load average": load,
        "warnings": [*pins.differing(), *_busy(load[0])],
    }


def await_quiet(patience: float = PATIENCE) -> None:
    """Wait until the machine is left alone, but no longer than that. So what is told of its load is others' work."""
    deadline = monotonic() + patience
    while _busy(os.getloadavg()[0]) and monotonic() < deadline:
        sleep(PAUSE)


def _busy(load: float) -> list[str]:
    processors = os.cpu_count() or 1
    if load < QUIET * processors:
        return []
    return [f"a load of {load:.1f} on {processors} processors in the minute before"]


def save(result: Mapping[str, Any], name: str, *, keep: bool) -> Path:
    """Write it under `name`; `keep` writes a copy under the time of day."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=1)
    path = RESULTS / f"{name}.json"
    path.write_text(text)
    if keep:
        path.with_name(f"{datetime.now():%Y-%m-%dT%H%M%S}.json").write_text(text)
    return path


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
