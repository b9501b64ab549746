"""What the database tells of streams and their groups: one look, for all who watch.

Each question is a read-only transaction of its own over one connection, reads a bounded part of each table, and is
ended by the server if it takes long (`drivers.asking`). Of streams whose owner is not to be trusted nothing is asked
(`doctor.access`). It blocks: in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from time import monotonic
from typing import Any

from psycopg.sql import SQL, Composed, Identifier, Literal

from pgpubsub.doctor.access import access_to
from pgpubsub.doctor.lag import OF_GROUPS, PLANS, Group, Lags
from pgpubsub.drivers.asking import ask
from pgpubsub.drivers.psycopg3 import Connection, break_off, open_connection, psycopg
from pgpubsub.errors import PubSubError
from pgpubsub.logs import EventLog
from pgpubsub.web.access import Patterns

__all__ = ["UNREACHABLE", "Eye", "Seen", "Stream", "Unseen"]

logger = EventLog("gateway")

MILLISECONDS = 500
"""That the server may take for a question."""

SHOWN = 200
"""Streams that one viewer is shown: those with the newest entries."""

ASKED = 1000
"""Streams that are looked at closely, for all viewers together."""

KNOWN = 20_000
"""Streams of which is asked which have the newest entries. Of more, some are not found."""

ENOUGH = 10_000
"""New entries of a stream that are counted."""

OPEN = 200
"""Transactions that were open at the last look, and whose entries are counted now."""

UNREACHABLE = "the database cannot be reached"
"""What people are told whom the server's own words do not concern."""

NEWEST = SQL("""
SELECT array_agg(id ORDER BY entry DESC NULLS LAST, id) AS ids
  FROM (SELECT known.id, last.id AS entry
          FROM (SELECT id FROM {schema}.stream LIMIT {known}) AS known
          LEFT JOIN LATERAL (SELECT id FROM {schema}.entry
                              WHERE entry.stream = known.id ORDER BY entry.id DESC LIMIT 1) AS last ON true) AS one
""")

NAMES = SQL("SELECT id, name FROM {schema}.stream WHERE id = ANY ({ids}::bigint[])")

# By snapshots: what is visible now and was not at the last look. (A stream's ids do not commit in their order.)
CLOSELY = SQL("""
SELECT asked.id, to_json(asked.appended_at) #>> '{{}}' AS last, pg_current_snapshot()::text AS snapshot,
       (SELECT count(*) FROM (
            SELECT FROM {schema}.entry
             WHERE entry.stream = asked.id AND entry.xid >= {below}::text::xid8
             ORDER BY entry.xid, entry.id LIMIT {enough}) AS new)
       + (SELECT count(*) FROM (
            SELECT FROM unnest({open}::text[]::xid8[]) AS open (xid)
              JOIN {schema}.entry ON entry.stream = asked.id AND entry.xid = open.xid
             LIMIT {enough}) AS late) AS appended
  FROM (SELECT) AS one
  LEFT JOIN (SELECT one.id, last.appended_at
               FROM unnest({ids}::bigint[]) AS one (id)
               LEFT JOIN LATERAL (SELECT appended_at FROM {schema}.entry
                                   WHERE entry.stream = one.id ORDER BY entry.id DESC LIMIT 1) AS last ON true
            ) AS asked ON true
""")


@dataclass(frozen=True, slots=True)
class Stream:
    """One that was looked at closely."""

    name: str
    last: str | None
    """When its newest entry was appended, as ISO 8601 has it; None: it has no entry."""
    rate: float | None
    """Entries a second that became visible since the last look; None: there was none."""
    groups: Sequence[Group]


@dataclass(frozen=True, slots=True)
class Seen:
    """What may be shown, by the patterns of those who may see it."""

    shown: Mapping[tuple[str, ...], Sequence[Stream]]
    more: Mapping[tuple[str, ...], int]
    """How many streams there are beside those."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """Why there is nothing to be seen: in a word for programs, and a sentence that tells no secrets."""

    code: str
    detail: str


class _Known:
    """What is remembered from one look to the next over one connection: of another server it means nothing."""

    def __init__(self, schema: str) -> None:
        self.lags = Lags(schema)
        self.names: dict[int, str] = {}
        self.snapshot = ""
        self.looked_at = 0.0


class Eye:
    """Connects when it looks first, and again whenever the connection was lost."""

    def __init__(self, schema: str) -> None:
        self._name = schema
        self._schema = Identifier(schema)
        self._conn: Connection | None = None
        self._told = ""
        self._known = _Known(schema)

    def look(self, conninfo: str, viewers: Iterable[Patterns]) -> Seen | Unseen:
        """See what `viewers` may see. It raises nothing that is the database's fault."""
        try:
            seen = self._look(conninfo, tuple(viewers))
            self._told = ""
            return seen
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
            return Unseen("slow", "the database takes too long to tell of streams")
        except (psycopg.Error, PubSubError) as error:
            if self._conn is None or self._conn.closed or self._conn.broken:
                return Unseen("unavailable", UNREACHABLE)
            return self._refused(str(error))

    def break_off(self) -> None:
        """Have a question that gets no answer fail. For other threads."""
        if self._conn is not None:
            break_off(self._conn)

    def close(self) -> None:
        """End the connection."""
        if self._conn is not None:
            self._conn.close()

    def _look(self, conninfo: str, viewers: Sequence[Patterns]) -> Seen | Unseen:
        if self._conn is None or self._conn.closed or self._conn.broken:
            self._known = _Known(self._name)
            self._conn = open_connection(conninfo)
        access = access_to(self._name, partial(ask, self._conn, milliseconds=MILLISECONDS))
        if not access.installed:
            return Unseen(
                "not-installed", "streams are not installed in this database: pgpubsub stream install does it"
            )
        if (refusal := access.refusal(OF_GROUPS)) is not None:
            return self._refused(refusal)
        newest = self._newest()
        chosen = {viewer.given: [id for id in newest if viewer.match(f"streams/{newest[id]}")] for viewer in viewers}
        closely = self._closely(_in_turns(ids[:SHOWN] for ids in chosen.values()))
        groups: dict[str, list[Group]] = {}
        for group in self._known.lags.groups(self._ask).groups:
            groups.setdefault(group.stream, []).append(group)
        shown = {
            given: [Stream(newest[id], *closely[id], groups.get(newest[id], ())) for id in ids[:SHOWN] if id in closely]
            for given, ids in chosen.items()
        }
        return Seen(shown, {given: len(ids) - len(shown[given]) for given, ids in chosen.items()})

    def _newest(self) -> dict[int, str]:
        """The streams' names by their ids, those with the newest entries first."""
        ((ids,),) = self._ask(NEWEST.format(schema=self._schema, known=Literal(KNOWN)))
        ids = ids or []
        names = self._known.names
        if unknown := [id for id in ids if id not in names]:
            names.update(self._ask(NAMES.format(schema=self._schema, ids=Literal(unknown))))
        self._known.names = {id: names[id] for id in ids if id in names}
        return self._known.names

    def _closely(self, ids: Iterable[int]) -> dict[int, tuple[str | None, float | None]]:
        """When each got its last entry, and how many in a second."""
        known = self._known
        _, below, open_ = known.snapshot.split(":") if known.snapshot else ("", None, "")
        question = CLOSELY.format(
            schema=self._schema,
            ids=Literal(list(ids)),
            below=Literal(below),
            open=Literal(open_.split(",")[:OPEN] if open_ else []),
            enough=Literal(ENOUGH),
        )
        rows, now = self._ask(question), monotonic()
        seconds = now - known.looked_at if known.snapshot else None
        known.snapshot, known.looked_at = rows[0].snapshot, now
        return {row.id: (row.last, row.appended / seconds if seconds else None) for row in rows if row.id is not None}

    def _ask(self, question: Composed | SQL) -> list[Any]:
        assert self._conn is not None
        return ask(self._conn, Composed([PLANS, question]), milliseconds=MILLISECONDS)

    def _refused(self, why: str) -> Unseen:
        if why != self._told:
            self._told = why
            logger.warning("streams_unseen", "the page cannot show streams: %(detail)s", detail=why)
        return Unseen("refused", "the gateway may not look at the streams: its log says why")


def _in_turns(lists: Iterable[Sequence[int]]) -> Iterator[int]:
    """The first of each, then the second of each, as far as they may be asked for."""
    found: dict[int, None] = {}
    for some in zip_longest(*lists):
        found.update((id, None) for id in some if id is not None)
        if len(found) >= ASKED:
            break
    return iter(list(found)[:ASKED])
