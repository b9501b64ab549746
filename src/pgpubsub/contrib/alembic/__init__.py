"""Triggers and streams in Alembic's migrations, written by hand or by autogenerate (the extra `alembic`).

Import it in `env.py`; that is all. Migrations then have `op.install_trigger`, `op.drop_trigger` and
`op.install_streams`, online and offline, and autogenerate compares what `pgpubsub.contrib.sqlalchemy` declares with
what the database has. docs/sqlalchemy.md is the manual.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("alembic") is None:
    raise ImportError("pgpubsub.contrib.alembic needs Alembic: pip install 'pgpubsub[binary,alembic]'")

from pgpubsub.contrib.alembic import comparison, rendering  # which register what is in them
from pgpubsub.contrib.alembic.operations import DropTriggerOp, InstallStreamsOp, InstallTriggerOp

__all__ = ["DropTriggerOp", "InstallStreamsOp", "InstallTriggerOp", "comparison", "rendering"]
