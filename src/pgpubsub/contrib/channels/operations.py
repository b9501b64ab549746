"""The operation for Django's migrations that installs the tables of a channel layer."""

from __future__ import annotations

from pgpubsub.contrib.channels.statements import SCHEMA, sql
from pgpubsub.contrib.django.operations import SchemaOperation

__all__ = ["InstallChannelLayer"]


class InstallChannelLayer(SchemaOperation):
    """Install the tables of `PostgresChannelLayer`. Undoing leaves them.

    Args:
        schema: where they go.
    """

    what = "a channel layer"

    def __init__(self, schema: str = SCHEMA) -> None:
        super().__init__(schema)

    def text(self) -> str:
        return sql(self.schema)
