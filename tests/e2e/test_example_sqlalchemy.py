"""The example for SQLAlchemy and Alembic, as people run it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import psycopg
import pytest

from tests.e2e.test_examples import ROOT, environment, new_database

__all__ = ["environment"]

DIRECTORY = ROOT / "examples" / "sqlalchemy_orders"
Run = Callable[..., str]


@pytest.fixture
def run(environment: dict[str, str], dsn: str) -> Iterator[Run]:
    """In a database of its own, since Alembic compares all tables that there are."""
    ours = environment | {"DATABASE_URL": "postgresql+psycopg://postgres@/orders"}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-B", "-W", "error", *arguments],
            cwd=DIRECTORY,
            env=ours,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    new_database(dsn, "orders")
    yield run
    run("-m", "alembic", "downgrade", "base")
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("DROP DATABASE orders WITH (FORCE)")


def test_a_migration_makes_the_trigger_and_the_hub_is_told(run: Run) -> None:
    run("-m", "alembic", "upgrade", "head")
    assert run("sqlalchemy_orders.py") == "insert {'state': 'open'}\nupdate {'state': 'paid'}\n"
    assert run("-m", "alembic", "check") == "No new upgrade operations detected.\n"


def test_the_migration_can_be_printed(run: Run) -> None:
    script = run("-m", "alembic", "upgrade", "head", "--sql")
    assert script.index("CREATE TABLE orders") < script.index("-- Installs a trigger") < script.rindex("COMMIT;")
