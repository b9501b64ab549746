"""The examples of the README and of `examples/`, run as they stand by a new process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pgpubsub import GapReason
from pgpubsub.core.buffer import Overflow

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(r"```python\n([^`]*)```\n```text\n([^`]*)```", (ROOT / "README.md").read_text())


@pytest.fixture(scope="module")
def environment(dsn: str) -> dict[str, str]:
    """The examples connect to the database `test` as `postgres`; libpq's environment says where that is."""
    part = conninfo_to_dict(dsn)
    with psycopg.connect(dsn, autocommit=True) as admin:
        if admin.execute("SELECT 1 FROM pg_database WHERE datname = 'test'").fetchone() is None:
            admin.execute("CREATE DATABASE test")
    names = {"PGHOST": "host", "PGPORT": "port", "PGPASSWORD": "password"}
    return {**os.environ} | {variable: str(part[name]) for variable, name in names.items() if part.get(name)}


def run(*arguments: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-W", "error::DeprecationWarning", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return re.sub(r"Notify\(\d+,", "Notify(9425,", done.stdout)


TRACED = (ROOT / "docs" / "opentelemetry.md").read_text()


def test_the_examples_are_short() -> None:
    assert len(EXAMPLES) == 10
    assert max(code.count("\n") for code, _ in EXAMPLES) <= 15


@pytest.mark.parametrize(("code", "output"), EXAMPLES)
def test_an_example_prints_what_the_readme_says(code: str, output: str, environment: dict[str, str]) -> None:
    assert run("-c", code, environment=environment) == output


def test_the_event_loop_example_follows_reconnections(environment: dict[str, str]) -> None:
    assert run(str(ROOT / "examples" / "event_loop.py"), environment=environment).splitlines() == [
        "Notify(9425, 'news', 'one')",
        "a gap on news",
        "Notify(9425, 'news', 'two')",
        "a gap on news",
        "Notify(9425, 'news', 'three')",
    ]


def test_the_examples_of_traces_print_what_the_manual_says(environment: dict[str, str]) -> None:
    [(code, output)] = re.findall(r"```python\n([^`]*)```\n```text\n([^`]*)```", TRACED)
    assert run("-c", code, environment=environment) == output
    program = run(str(ROOT / "examples" / "opentelemetry_orders.py"), environment=environment)
    assert f"```text\n{program}```" in TRACED


def test_the_readme_links_to_what_is_there() -> None:
    for link in re.findall(r"\]\(([^):#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / link).exists(), link


def test_the_manual_explains_every_reason_for_a_gap_and_every_policy() -> None:
    manual = (ROOT / "docs" / "hub.md").read_text() + (ROOT / "docs" / "streams.md").read_text()
    for name in [*GapReason, *get_args(Overflow)]:
        assert re.search(rf'^\| `"?{name}"?` \|', manual, re.MULTILINE), name


def test_the_manual_links_to_what_is_there() -> None:
    for page in (ROOT / "docs").glob("**/*.md"):
        for link in re.findall(r"\]\(([^):#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), (page, link)
