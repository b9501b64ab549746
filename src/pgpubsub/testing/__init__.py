"""For tests and demonstrations: a PostgreSQL server that is gone afterwards."""

from __future__ import annotations

from pgpubsub.testing.server import TemporaryServer

__all__ = ["TemporaryServer"]
