"""How far groups are behind, as far as can be told in a moment: each question reads a bounded part of each table.

Groups are looked at in turns if there are many, so that some of their figures may be a few looks old. Whether these
questions may be asked at all is for `access` to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psycopg.sql import SQL, Composed, Identifier, Literal

from pgpubsub.drivers.psycopg3 import psycopg

__all__ = ["ENOUGH", "OF_GROUPS", "PLANS", "Ask", "Group", "Groups", "Lags"]

Ask = Callable[[Composed | SQL], list[Any]]

OF_GROUPS = ("stream", "entry", "consumer_group", "member", "parked", "slot")
"""The relations that are asked."""

ENOUGH = 10_000
"""Entries of a group that are looked at, in each way to find those that are not settled, held up or set aside."""

TURN = 20
"""Groups that are looked at at once."""

# Statistics that are out of date must not make the planner read, and sort, all of what is asked for only a part of.
PLANS = SQL("""
SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off; SET LOCAL max_parallel_workers_per_gather = 0;
""")

GROUPS = SQL("""
SELECT known.id, coalesce(stream.name, '?') AS stream, known.name, count(*) OVER () AS total
  FROM {schema}.consumer_group AS known LEFT JOIN {schema}.stream ON stream.id = known.stream
 ORDER BY known.created_at, known.id LIMIT 1000
""")

# How far a group is behind can take seconds to count (see group_lag). So entries are looked at from several places, as
# far as is enough each: where the last and the first of its slots stand, also on their way through a backlog; and those
# of transactions that were open when a slot came by.
GROUP = SQL("""
SELECT known.id,
       (SELECT count(*) FROM {schema}.member
         WHERE consumer_group = known.id AND until >= clock_timestamp()) AS members,
       (SELECT count(*) FROM (
            SELECT FROM {schema}.parked
             WHERE consumer_group = known.id AND due_at IS NOT NULL LIMIT {enough}) AS held) AS held_up,
       (SELECT count(*) FROM (
            SELECT FROM {schema}.parked
             WHERE consumer_group = known.id AND dead_at IS NOT NULL LIMIT {enough}) AS set_aside) AS dead,
       lag.entries, lag.at_least, extract(epoch FROM clock_timestamp() - lag.oldest)::float8 AS oldest
  FROM {schema}.consumer_group AS known CROSS JOIN LATERAL (
    WITH its AS MATERIALIZED (SELECT * FROM {schema}.slot WHERE consumer_group = known.id),
    behind AS MATERIALIZED (
        SELECT one.id, one.xid, one.slot
          FROM ((SELECT below FROM its ORDER BY below LIMIT 1)
                UNION (SELECT below FROM its ORDER BY below DESC LIMIT 1)) AS place
         CROSS JOIN LATERAL (
            SELECT id, xid, slot FROM {schema}.entry
             WHERE stream = known.stream AND xid >= place.below ORDER BY xid, id LIMIT {enough}) AS one),
    further AS MATERIALIZED (
        SELECT one.id, one.xid, one.slot
          FROM (SELECT min(last) AS last FROM its WHERE target_below IS NOT NULL
                UNION SELECT max(last) FROM its WHERE target_below IS NOT NULL) AS place
         CROSS JOIN LATERAL (
            SELECT id, xid, slot FROM {schema}.entry
             WHERE stream = known.stream AND id > place.last ORDER BY id LIMIT {enough}) AS one),
    late AS MATERIALIZED (
        SELECT entry.id, entry.xid, entry.slot
          FROM (SELECT DISTINCT open.xid FROM its CROSS JOIN LATERAL unnest(its.open) AS open (xid) LIMIT 200) AS open
          JOIN {schema}.entry ON entry.stream = known.stream AND entry.xid = open.xid
         LIMIT {enough}),
    unsettled AS MATERIALIZED (
        SELECT one.id
          FROM (TABLE behind UNION TABLE further UNION TABLE late) AS one JOIN its ON its.slot = one.slot
         WHERE NOT {schema}.covers(below, open, target_below, target_open, last, one.id, one.xid)
        UNION
        SELECT entry.id
          FROM its CROSS JOIN LATERAL unnest(its.in_flight || its.held) AS taken (id)
          JOIN {schema}.entry ON entry.stream = known.stream AND entry.id = taken.id),
    waiting AS MATERIALIZED (
        (SELECT appended_at FROM {schema}.parked
          WHERE consumer_group = known.id AND key IS NOT NULL AND dead_at IS NULL LIMIT {enough})
        UNION ALL
        (SELECT appended_at FROM {schema}.parked
          WHERE consumer_group = known.id AND key IS NULL AND due_at IS NOT NULL LIMIT {enough})),
    counted AS (
        SELECT greatest((SELECT count(*) FROM behind), (SELECT count(*) FROM further), (SELECT count(*) FROM late),
                        (SELECT count(*) FROM waiting)) >= {enough} AS cut_off,
               (SELECT count(*) FROM unsettled) + (SELECT count(*) FROM waiting) AS found)
    SELECT least(counted.found, {enough}) AS entries, counted.cut_off AS at_least,
           least((SELECT appended_at FROM {schema}.entry
                   WHERE stream = known.stream AND id = (SELECT min(id) FROM unsettled)),
                 (SELECT min(appended_at) FROM waiting)) AS oldest
      FROM counted) AS lag
 WHERE known.id = ANY ({groups}::bigint[])
""")


@dataclass(frozen=True, slots=True)
class Group:
    """A group of consumers."""

    stream: str
    name: str
    lag: int
    """Entries that are not settled."""
    at_least: bool
    """Whether they are more, and were not counted."""
    oldest: float | None
    """Seconds since the first of them was appended; None: there is none, or it was not found."""
    members: int
    held_up: int
    """Entries that failed and wait to be handed out again."""
    dead: int
    """Entries that were set aside."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Those with the oldest unsettled entry first."""

    total: int
    groups: tuple[Group, ...]


class Lags:
    """For one connection: what was known of another server means nothing here.

    Args:
        schema: where streams are installed.
        turns: how often `TURN` groups are looked at in one look.
    """

    def __init__(self, schema: str, turns: int = 1) -> None:
        self._schema = Identifier(schema)
        self._turns = turns
        self._turn = TURN
        self._known: dict[int, Group] = {}
        """By the group's id, those looked at longest ago first."""

    def groups(self, ask: Ask) -> Groups:
        """All groups, as far as they were looked at. Raises whatever `ask` does."""
        rows = ask(GROUPS.format(schema=self._schema))
        named = {row.id: row for row in rows}
        self._known = {id_: group for id_, group in self._known.items() if id_ in named}
        due = [id_ for id_ in named if id_ not in self._known] + list(self._known)
        try:
            for _ in range(self._turns):
                turn, due = due[: self._turn], due[self._turn :]
                question = GROUP.format(schema=self._schema, enough=Literal(ENOUGH), groups=Literal(turn))
                for row in ask(question) if turn else ():
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
