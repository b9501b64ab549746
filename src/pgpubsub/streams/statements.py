"""The statements of streams.

Parameters are psycopg's, by name, and have one type each time: numbers and lists of numbers are passed as text. So the
server prepares each statement once. What they promise is said in `core.reading`, whose steps they answer.

A range of transaction ids is read through the index (stream, xid, id) by itself, for a condition that is put together
from a list and a bound makes the planner read the whole stream. What is running is cut out of the range, so that a
transaction with a million entries, not committed yet, costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from pgpubsub.core.sql import quote_identifier

__all__ = ["SIZE", "Statements", "as_array"]

COLUMNS = "id, key, payload, payload_bytes, headers, appended_at"

SIZE = """(coalesce(octet_length(payload), octet_length(payload_bytes)) + coalesce(octet_length(key), 0)
            + coalesce(pg_column_size(headers), 0))"""
"""About what an entry takes. None of these functions reads what is stored elsewhere for its length."""

NOW = """
now AS MATERIALIZED (SELECT pg_current_snapshot() AS snapshot),
running AS MATERIALIZED (SELECT xip.xid::text::bigint AS xid FROM now, pg_snapshot_xip(now.snapshot) AS xip (xid))"""

FROM_BELOW = """
SELECT cut.xid + 1 AS low, coalesce(lead(cut.xid) OVER (ORDER BY cut.xid), 9223372036854775807) AS high
  FROM (SELECT {below} - 1 AS xid UNION ALL SELECT running.xid FROM running WHERE running.xid >= {below}) AS cut"""
"""The ranges from `below` up to the end, between what is running."""

ENDED = """
SELECT open.xid AS low, open.xid + 1 AS high FROM unnest({open}::bigint[]) AS open (xid)
 WHERE open.xid NOT IN (SELECT running.xid FROM running)"""
"""Those of `open` that are not running any more."""

IN_SPAN = "stream = {stream} AND xid >= span.low::text::xid8 AND xid < span.high::text::xid8"


def as_array(elements: Iterable[int | str]) -> str:
    """As PostgreSQL writes an array. Text has to be quoted.

    >>> as_array([1, 2])
    '{1,2}'
    """
    return "{" + ",".join(map(str, elements)) + "}"


class Statements:
    """Those for streams in one schema."""

    parameters: Mapping[str, str] = {}
    """That go with each statement that a reader runs."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self._of = quote_identifier(schema)  # for PostgreSQL's own parameters
        self._in = self._of.replace("%", "%%")  # for psycopg's
        self._entry = f"{self._in}.entry"

    @cached_property
    def session(self) -> str:
        """Version, the oldest version served, whether in recovery, the timeline (0 in recovery) and the birth's token
        (None: it was restored)."""
        return f"""
        SELECT version.number, version.serves_from, pg_is_in_recovery(),
               CASE WHEN pg_is_in_recovery() THEN 0
                    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END,
               (SELECT token FROM {self._in}.native_birth LIMIT 1)
          FROM (SELECT number, serves_from FROM {self._in}.version ORDER BY number DESC LIMIT 1) AS version
        """

    @property
    def _trimmed(self) -> str:
        """What retention has removed, as `core.trimmed` reads it; nothing, if that is as many entries as are known."""
        return f"""
        SELECT concat_ws(' ', removed, last, kept::int, id, (extract(epoch FROM appended_at) * 1000000)::bigint,
                         xids, ids)
          FROM {self._in}.trimmed WHERE stream = %(stream)s::bigint AND removed <> %(removed)s::bigint"""

    @property
    def _trimmed_row(self) -> str:
        """The same as a row in front of those of entries, without id."""
        slot = ", NULL::smallint" if self._slot else ""
        return f"""
        SELECT NULL::bigint AS id, NULL AS key, trimmed.text AS payload, NULL::bytea AS payload_bytes, NULL AS headers,
               NULL::timestamptz AS appended_at, NULL::bigint AS xid {slot}
          FROM ({self._trimmed}) AS trimmed (text)"""

    @cached_property
    def anchors(self) -> str:
        """Which of these entries are there, by number from 1 on, the snapshot, and what was removed."""
        return f"""
        SELECT ARRAY(
          SELECT given.number
            FROM unnest(%(ids)s::bigint[], %(xids)s::bigint[], %(times)s::bigint[])
                 WITH ORDINALITY AS given (id, xid, microseconds, number)
            JOIN {self._entry} AS entry
              ON entry.stream = %(stream)s::bigint AND entry.id = given.id AND entry.xid = given.xid::text::xid8
             AND (extract(epoch FROM entry.appended_at) * 1000000)::bigint = given.microseconds),
          pg_current_snapshot()::text, ({self._trimmed})
        """

    @cached_property
    def look(self) -> str:
        """First a row with the snapshot as `key`, and as `id`, `appended_at` and `xid` those of the newest entry not
        below `below`. If something was removed, a row without `id` that has it as `payload`. Then entries, in no
        particular order. If they are as many as `rows`, there may be more; and after about `bytes` of payload there are
        rows without any."""
        return f"""
        WITH {NOW},
        span AS MATERIALIZED ({FROM_BELOW.format(below="%(below)s::bigint")}
          UNION ALL {ENDED.format(open="%(open)s")})
        SELECT {self._first_of_look}
        UNION ALL
        {self._trimmed_row}
        UNION ALL
        (SELECT id, key, CASE WHEN size_before < %(bytes)s::bigint THEN payload END,
                CASE WHEN size_before < %(bytes)s::bigint THEN payload_bytes END,
                CASE WHEN size_before < %(bytes)s::bigint THEN headers::text END, appended_at, xid::text::bigint
                {self._slot}
           FROM (
             SELECT *, sum(size) OVER (ROWS UNBOUNDED PRECEDING) - size AS size_before
               FROM (
                 SELECT found.* FROM span CROSS JOIN LATERAL (
                   SELECT {COLUMNS}, xid, slot, {SIZE} AS size FROM {self._entry}
                    WHERE {IN_SPAN.format(stream="%(stream)s::bigint")} {self._in_slots}
                    ORDER BY xid, id LIMIT %(rows)s::bigint) AS found
                 LIMIT %(rows)s::bigint) AS due) AS summed)
        """

    _first_of_look = """
               NULL AS id, snapshot::text AS key, NULL AS payload, NULL AS payload_bytes, NULL AS headers,
               NULL AS appended_at, NULL AS xid
          FROM now"""
    """Who reads all entries sees for himself which is the newest."""
    _slot = _in_slots = ""

    @property
    def _newest(self) -> str:
        return f"""
            SELECT found.* FROM span CROSS JOIN LATERAL (
              SELECT id, appended_at, xid FROM {self._entry}
               WHERE {IN_SPAN.format(stream="%(stream)s::bigint")}
               ORDER BY xid DESC, id DESC LIMIT 1) AS found
             WHERE span.low >= %(below)s::bigint
             ORDER BY found.xid DESC LIMIT 1"""

    @cached_property
    def measure(self) -> str:
        """The snapshot; id, time and transaction of the newest entry not below `below`; the highest id; what was
        removed."""
        return f"""
        WITH {NOW},
        span AS MATERIALIZED ({FROM_BELOW.format(below="%(below)s::bigint")})
        SELECT now.snapshot::text, newest.id, newest.appended_at, newest.xid::text::bigint, highest.id,
               ({self._trimmed})
          FROM now
          LEFT JOIN LATERAL ({self._newest}) AS newest ON true
          LEFT JOIN LATERAL ({self._highest}) AS highest ON true
        """

    @cached_property
    def running(self) -> str:
        """The snapshot's xmax, and which of the transactions that are asked for are running."""
        return """
        WITH now AS MATERIALIZED (
          SELECT pg_snapshot_xmin(snapshot)::text::bigint AS xmin, pg_snapshot_xmax(snapshot)::text::bigint AS xmax
            FROM (SELECT pg_current_snapshot() AS snapshot) AS taken)
        SELECT now.xmax, ARRAY(
          SELECT asked.xid FROM (
            SELECT unnest(%(known)s::bigint[]) AS xid
            UNION
            SELECT generate_series(coalesce(%(start)s::bigint, now.xmin), now.xmax - 1)) AS asked
          WHERE asked.xid < now.xmax AND pg_xact_status(asked.xid::text::xid8) = 'in progress')
          FROM now
        """

    @cached_property
    def find(self) -> str:
        """Id, time and transaction of the newest entry; the highest id; which of `running`, and of those from `xmax`
        on, have visible entries; the snapshot; and what was removed."""
        return f"""
        SELECT newest.id, newest.appended_at, newest.xid::text::bigint, highest.id, ARRAY(
          SELECT given.xid FROM unnest(%(running)s::bigint[]) AS given (xid)
           WHERE EXISTS (SELECT FROM {self._entry} AS entry
                          WHERE entry.stream = %(stream)s::bigint AND entry.xid = given.xid::text::xid8)
          UNION
          SELECT entry.xid::text::bigint FROM {self._entry} AS entry
           WHERE entry.stream = %(stream)s::bigint AND entry.xid >= %(xmax)s::text::xid8),
               pg_current_snapshot()::text, ({self._trimmed})
          FROM (SELECT) AS one
          LEFT JOIN LATERAL (
            SELECT id, appended_at, xid FROM {self._entry} WHERE stream = %(stream)s::bigint
             ORDER BY xid DESC, id DESC LIMIT 1) AS newest ON true
          LEFT JOIN LATERAL ({self._highest}) AS highest ON true
        """

    @property
    def _highest(self) -> str:
        return f"SELECT id FROM {self._entry} WHERE stream = %(stream)s::bigint ORDER BY id DESC LIMIT 1"

    @cached_property
    def first(self) -> str:
        """The lowest id above `after` in some ranges of transactions, and what was removed."""
        return f"""
        SELECT min(found.id), ({self._trimmed})
          FROM unnest(%(lows)s::bigint[], %(highs)s::bigint[]) AS span (low, high)
         CROSS JOIN LATERAL (
           SELECT min(inside.id) AS id FROM (
             SELECT id FROM {self._entry}
              WHERE {IN_SPAN.format(stream="%(stream)s::bigint")} AND id > %(after)s::bigint OFFSET 0) AS inside
         ) AS found
        """

    @cached_property
    def page(self) -> str:
        """The rows with the next ids; without transaction id and payload where they are not wanted. None at all: that
        was the end. There may be fewer than `rows`, so that they have about `bytes`. If something was removed, there is
        a row without id first that has it as `payload`."""
        return f"""
        {self._trimmed_row}
        UNION ALL
        (SELECT id, CASE WHEN wanted THEN key END, CASE WHEN wanted THEN payload END,
               CASE WHEN wanted THEN payload_bytes END, CASE WHEN wanted THEN headers::text END, appended_at,
               CASE WHEN wanted THEN xid::text::bigint END {self._slot}
          FROM (
            SELECT *, sum(size) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) - size AS size_before
              FROM (
                SELECT *, CASE WHEN wanted THEN {SIZE} ELSE 0 END AS size
                  FROM (
                    SELECT {COLUMNS}, xid, slot,
                           (xid < %(target)s::text::xid8 AND xid <> ALL (%(target_open)s::xid8[])
                            AND (xid >= %(below)s::text::xid8 OR xid = ANY (%(open)s::xid8[]))) AS wanted
                      FROM {self._entry}
                     WHERE stream = %(stream)s::bigint AND id > %(after)s::bigint AND id <= %(until)s::bigint
                           {self._in_slots}
                     ORDER BY id LIMIT %(rows)s::bigint) AS raw) AS sized) AS summed
         WHERE size_before < %(bytes)s::bigint
         ORDER BY id)
        """

    @cached_property
    def watch(self) -> str:
        """Which of some positions, by their numbers from 1 on, have something new, or missed something."""
        return f"""
        WITH {NOW},
        given AS MATERIALIZED (
          SELECT * FROM unnest(%(streams)s::bigint[], %(belows)s::bigint[], %(opens)s::text[])
                   WITH ORDINALITY AS given (stream, below, open, number))
        SELECT given.number FROM given WHERE EXISTS (
          SELECT FROM ({FROM_BELOW.format(below="given.below")}
            UNION ALL {ENDED.format(open="given.open")}) AS span
           CROSS JOIN LATERAL (
             SELECT FROM {self._entry} WHERE {IN_SPAN.format(stream="given.stream")} LIMIT 1) AS found)
            OR EXISTS (SELECT FROM {self._in}.trimmed
                        WHERE trimmed.stream = given.stream
                          AND (trimmed.below > given.below::text::xid8 OR trimmed.xids && given.open::xid8[]))
        """

    @cached_property
    def streams_to_trim(self) -> str:
        """Those that retention concerns, unless somebody has asked within the last seconds."""
        return f"SELECT * FROM {self._in}.streams_to_trim(%(pause)s::double precision)"

    @cached_property
    def trim(self) -> str:
        """Remove a batch. Returns how many; 0: there are no more; None: none yet."""
        return f"SELECT {self._in}.trim(%(stream)s::bigint, %(most)s::int)"

    @cached_property
    def version(self) -> str:
        """Version, and the oldest version served, in two rows, for who appends."""
        return f"""
        SELECT CASE row WHEN 1 THEN number ELSE serves_from END
          FROM (SELECT number, serves_from FROM {self._of}.version ORDER BY number DESC LIMIT 1) AS version
         CROSS JOIN generate_series(1, 2) AS row
         ORDER BY row
        """

    @cached_property
    def append(self) -> str:
        """Store entries, in order, and return their ids. Parameters are PostgreSQL's own: arrays for the columns."""
        return f"""
        INSERT INTO {self._of}.entry (stream, key, payload, payload_bytes, headers)
        SELECT stream, key, payload, payload_bytes, headers::jsonb
          FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bytea[], $5::text[])
               AS given (stream, key, payload, payload_bytes, headers)
        RETURNING id
        """

    @cached_property
    def append_to_new(self) -> str:
        """The same, and then the number of each stream of a list that has its name by now, or NULL."""
        return f"WITH stored AS ({self.append}) SELECT id FROM stored UNION ALL {self._registered('$6')}"

    @cached_property
    def append_once(self) -> str:
        """`append` with idempotency keys. What is there already has the id that it has; where another transaction is
        about to store it, there is none, and it may be tried again."""
        return f"{self._storing_once} {self._stored_once}"

    @cached_property
    def append_once_to_new(self) -> str:
        """The same, and then what `append_to_new` has."""
        return f"{self._storing_once} ({self._stored_once}) UNION ALL {self._registered('$7')}"

    @property
    def _storing_once(self) -> str:
        return f"""
        WITH given AS MATERIALIZED (
          SELECT *, pg_try_advisory_xact_lock(hashtextextended(idempotency_key, stream)) AS free
            FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[])
                 WITH ORDINALITY AS given (stream, key, payload, payload_bytes, headers, idempotency_key, number)),
        stored AS (
          INSERT INTO {self._of}.entry (stream, key, payload, payload_bytes, headers, idempotency_key)
          SELECT stream, key, payload, payload_bytes, headers::jsonb, idempotency_key
            FROM given WHERE free ORDER BY number
          ON CONFLICT (stream, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
          RETURNING id, stream, idempotency_key)"""

    @property
    def _stored_once(self) -> str:
        return f"""
        SELECT coalesce(stored.id, there.id)
          FROM given
          LEFT JOIN stored USING (stream, idempotency_key)
          LEFT JOIN {self._of}.entry AS there USING (stream, idempotency_key)
         ORDER BY given.number
        """

    def _registered(self, names: str) -> str:
        return f"""
        (SELECT known.id
           FROM unnest({names}::text[]) WITH ORDINALITY AS given (name, number)
           LEFT JOIN {self._of}.stream AS known ON known.name = given.name
          ORDER BY given.number)"""

    @cached_property
    def register(self) -> str:
        """Give streams their names, unless they have them."""
        return f"SELECT {self._of}.register($1::text[])"
