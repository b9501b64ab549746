"""Streams and groups, and what has to be remembered of them from one sample to the next.

A stream's figure is the number of entries that became visible since the last sample. Groups are looked at in turns if
there are many, so that some of their figures may be a few samples old.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psycopg.sql import SQL, Composed, Identifier, Literal

from pgpubsub.cli.top.figures import Group, Groups, Stream, Streams
from pgpubsub.cli.top.questions import ENOUGH, GROUP, GROUPS, STREAMS
from pgpubsub.drivers.psycopg3 import psycopg

__all__ = ["Ask", "Streaming"]

Ask = Callable[[Composed | SQL], list[Any]]

MOST_NEW = 100_000
"""New entries of a stream that are counted."""
MOST_OPEN = 200
"""Transactions that were open at the last sample, and whose entries are counted now."""
TURN = 20
"""Groups that are looked at in one sample."""


class Streaming:
    """For one connection: what was known of another server means nothing here."""

    def __init__(self, schema: str) -> None:
        self._schema = Identifier(schema)
        self._snapshot = ""
        self._turn = TURN
        self._known: dict[int, Group] = {}
        """By the group's id, those looked at longest ago first."""

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

    def groups(self, ask: Ask) -> Groups:
        """All groups, as far as they were looked at. Raises whatever `ask` does."""
        rows = ask(GROUPS.format(schema=self._schema))
        named = {row.id: row for row in rows}
        self._known = {id_: group for id_, group in self._known.items() if id_ in named}
        due = [id_ for id_ in named if id_ not in self._known] + list(self._known)
        question = GROUP.format(schema=self._schema, enough=Literal(ENOUGH), groups=Literal(due[: self._turn]))
        try:
            for row in ask(question) if due else ():
                self._known.pop(row.id, None)
                self._known[row.id] = _group(named[row.id], row)
        except psycopg.errors.QueryCanceled:
            self._turn = max(1, self._turn // 2)
            if not self._known:
                raise
        return Groups(rows[0].total if rows else 0, tuple(sorted(self._known.values(), key=_trouble)))


def _group(named: Any, row: Any) -> Group:
    return Group(named.stream, named.name, row.entries, row.at_least, row.oldest, row.members, row.held_up, row.dead)


def _trouble(group: Group) -> tuple[float, int, str, str]:
    """The oldest entry first, then what has most to do."""
    return (-(group.oldest or 0.0), -group.lag, group.stream, group.name)
