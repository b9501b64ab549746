"""Programs with migrations, for the tests of Alembic."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic import command
from alembic.config import Config
from sqlalchemy import Column, MetaData, Text
from sqlalchemy.ext.asyncio import create_async_engine

from pgpubsub import triggers
from pgpubsub.contrib.sqlalchemy import trigger
from tests.contract.alchemy import Admin, order_table, url_of

__all__ = ["Project", "commands", "declared", "hand_written", "installed", "project"]

ENVIRONMENT = """
from alembic import context

import pgpubsub.contrib.alembic

project = context.config.attributes["project"]


def migrate(connection=None, **options):
    context.configure(connection=connection, target_metadata=project.metadata, **options, **project.options)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    migrate(url=project.url)
else:
    project.connect(migrate)
"""

TEMPLATE = '''
"""${message}"""
from alembic import op
import sqlalchemy as sa
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade():
    ${upgrades if upgrades else "pass"}


def downgrade():
    ${downgrades if downgrades else "pass"}
'''


@dataclass
class Project:
    """A program with migrations."""

    directory: Path
    url: sqlalchemy.URL
    metadata: MetaData = field(default_factory=MetaData)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.directory / "versions").mkdir(parents=True)
        (self.directory / "env.py").write_text(ENVIRONMENT)
        (self.directory / "script.py.mako").write_text(TEMPLATE)
        self.printed = io.StringIO()
        self.config = Config(output_buffer=self.printed, stdout=io.StringIO(), attributes={"project": self})
        self.config.set_main_option("script_location", str(self.directory))

    def connect(self, migrate: Callable[[Any], None]) -> None:
        if self.url.get_driver_name() == "asyncpg":
            asyncio.run(self._connect_async(migrate))
            return
        engine = sqlalchemy.create_engine(self.url)
        try:
            with engine.connect() as connection:
                migrate(connection)
        finally:
            engine.dispose()

    async def _connect_async(self, migrate: Callable[[Any], None]) -> None:
        engine = create_async_engine(self.url)
        try:
            async with engine.connect() as connection:
                await connection.run_sync(migrate)
        finally:
            await engine.dispose()

    def revise(self, metadata: MetaData) -> str:
        """Have a migration written to what `metadata` declares."""
        self.metadata = metadata
        script: Any = command.revision(self.config, "it changes", autogenerate=True)
        return Path(script.path).read_text()

    def upgrade(self, metadata: MetaData | None = None) -> str:
        """Have it written, and migrate."""
        migration = "" if metadata is None else self.revise(metadata)
        command.upgrade(self.config, "head")
        return migration

    def downgrade(self) -> None:
        command.downgrade(self.config, "-1")

    def check(self) -> None:
        """Nothing more is to be changed."""
        command.check(self.config)

    def sql(self) -> str:
        """What an upgrade would run."""
        self.printed.truncate(0)
        self.printed.seek(0)
        command.upgrade(self.config, "head", sql=True)
        return self.printed.getvalue()


@pytest.fixture
def project(database: str, tmp_path: Path) -> Project:
    return Project(tmp_path / "migrations", url_of(database, "psycopg"))


def commands(migration: str) -> tuple[list[str], list[str]]:
    """The names of what a migration does up and down."""
    up, down = re.split(r"def downgrade\(\)", migration)
    return re.findall(r" op\.(\w+)", up), re.findall(r" op\.(\w+)", down)


def declared(*columns: str, **options: Any) -> MetaData:
    """A table of orders with more columns, and a trigger if there are options."""
    metadata = MetaData()
    table = order_table(metadata)
    for name in columns:
        table.append_column(Column(name, Text))
    if options:
        trigger(table, **options)
    return metadata


def installed(admin: Admin) -> list[triggers.Trigger]:
    return triggers.installed(admin)


def hand_written(project: Project, upgrade: str) -> None:
    script: Any = command.revision(project.config, "by hand")
    path = Path(script.path)
    path.write_text(path.read_text().replace("    pass", f"    {upgrade}", 1))
