"""Durable streams: entries that are kept in a table, and read with nothing skipped.

`install` makes the tables, once for each database; `AsyncHub.stream` and `Hub.stream` append and read.
"""

from __future__ import annotations

from pgpubsub.core.position import BEGINNING, END
from pgpubsub.streams.installation import create, create_async, install, install_async, sql

__all__ = ["BEGINNING", "END", "create", "create_async", "install", "install_async", "sql"]
