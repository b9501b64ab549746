"""Streams, and what has to be remembered of them from one sample to the next.

A stream's figure is the number of entries that became visible since the last sample.
"""

from __future__ import annotations

from psycopg.sql import Identifier, Literal

from pgpubsub.doctor.lag import Ask
from pgpubsub.doctor.sampling.figures import Stream, Streams
from pgpubsub.doctor.sampling.questions import STREAMS

__all__ = ["Streaming"]

MOST_NEW = 100_000
"""New entries of a stream that are counted."""
MOST_OPEN = 200
"""Transactions that were open at the last sample, and whose entries are counted now."""


class Streaming:
    """For one connection: what was known of another server means nothing here."""

    def __init__(self, schema: str) -> None:
        self._schema = Identifier(schema)
        self._snapshot = ""

    def streams(self, ask: Ask) -> Streams:
        """The streams with the newest entries. Raises whatever `ask` does."""
        _, below, open_ = self._snapshot.split(":") if self._snapshot else ("", None, "")
        rows = ask(
            STREAMS.format(
                schema=self._schema,
                below=Literal(below),
                open=Literal(open_.split(",")[:MOST_OPEN] if open_ else []),
                enough=Literal(MOST_NEW),
            )
        )
        known = self._snapshot != ""
        self._snapshot = rows[0].snapshot
        return Streams(
            rows[0].total,
            tuple(
                Stream(row.name, row.appended if known else None, row.appended >= MOST_NEW, row.age)
                for row in rows
                if row.name is not None
            ),
        )
