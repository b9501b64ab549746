"""What is kept: a JSON file with every figure of every round, and on what it was measured."""

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

__all__ = ["environment", "save"]

RESULTS = Path(__file__).with_name("results")

PACKAGES = (
    *("pgpubsub", "psycopg", "psycopg-binary", "psycopg-c", "psycopg2-binary", "psycopg2", "PyGreSQL"),
    *("psycopg-pool", "asyncpg", "asyncpg-listen", "broadcaster", "uvloop", "msgspec"),
    *("procrastinate", "pgqueuer", "pgmq"),
    *("starlette", "uvicorn", "httptools", "pg-sse"),
)


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


def save(result: Mapping[str, Any], name: str, *, keep: bool) -> Path:
    """Write it under `name`; `keep` writes a copy under the time of day."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=1)
    path = RESULTS / f"{name}.json"
    path.write_text(text)
    if keep:
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
