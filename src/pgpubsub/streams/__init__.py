"""Durable streams: entries that are kept in a table, and read with nothing skipped.

`install` makes the tables, once for each database; `AsyncHub.stream` and `Hub.stream` append and read. `create` says
what a stream is like and how long it keeps its entries, and `trim` removes at once what it need not keep.
"""

from __future__ import annotations

from pgpubsub.core.position import BEGINNING, END
from pgpubsub.streams.installation import install, install_async, sql
from pgpubsub.streams.settings import UNCHANGED, create, create_async, trim, trim_async

__all__ = [
    "BEGINNING",
    "END",
    "UNCHANGED",
    "create",
    "create_async",
    "install",
    "install_async",
    "sql",
    "trim",
    "trim_async",
]
