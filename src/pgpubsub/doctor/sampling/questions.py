"""What is asked of a server, as SQL. Each question reads a bounded part of each table."""

from __future__ import annotations

from psycopg.sql import SQL

from pgpubsub.doctor.sessions import LISTENS, shown

__all__ = ["HIDDEN", "LISTENERS", "OF_STREAMS", "QUEUE", "SERVER", "STREAMS"]

OF_STREAMS = ("stream", "entry")
"""The relations that STREAMS asks."""

SERVER = SQL("""
SELECT current_database() AS database, current_user AS role, pg_is_in_recovery() AS in_recovery,
       split_part(current_setting('server_version'), ' ', 1) AS release,
       pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all
""")

QUEUE = SQL("""
SELECT pg_notification_queue_usage() AS usage,
       (SELECT count(*) FROM pg_locks
         WHERE locktype = 'object' AND classid = 1262 AND objid = 0 AND database = 0 AND NOT granted) AS waiting
""")

LISTENERS = SQL(f"""
WITH its AS (
    SELECT *, coalesce(state LIKE 'idle in transaction%' OR wait_event = 'ClientWrite'
                       OR xact_start < clock_timestamp() - interval '1 s', false) AS troublesome
      FROM pg_stat_activity WHERE application_name <> {{own}} AND {LISTENS})
SELECT pid, application_name AS application, coalesce({shown("datname")}, '') AS database, state, troublesome,
       extract(epoch FROM clock_timestamp() - coalesce(xact_start, state_change))::float8 AS seconds,
       wait_event AS waits_for, count(*) OVER () AS total
  FROM its ORDER BY troublesome DESC, coalesce(xact_start, state_change), pid LIMIT 100
""")  # a constant of ours

# A role without the rights of pg_monitor is told of others' sessions that they are there, and what they are called.
HIDDEN = SQL(f"""
SELECT count(*) AS hidden FROM pg_stat_activity
 WHERE datid IS NOT NULL AND usesysid IS NOT NULL AND backend_type IS NULL AND NOT {LISTENS}
""")  # a constant of ours

# By snapshots: what is visible now and was not at the time of the last sample. Ids would not do, as those of
# transactions that commit late are below others. The newest entries are those of the busiest streams.
STREAMS = SQL("""
WITH newest AS MATERIALIZED (
    SELECT known.id, known.name, last.id AS entry, last.appended_at
      FROM {schema}.stream AS known
      LEFT JOIN LATERAL (SELECT id, appended_at FROM {schema}.entry
                          WHERE entry.stream = known.id ORDER BY entry.id DESC LIMIT 1) AS last ON true
     ORDER BY last.id DESC NULLS LAST, known.name LIMIT 50)
SELECT newest.name, extract(epoch FROM clock_timestamp() - newest.appended_at)::float8 AS age,
       (SELECT count(*) FROM (
            SELECT FROM {schema}.entry
             WHERE entry.stream = newest.id AND entry.xid >= {below}::text::xid8
             ORDER BY entry.xid, entry.id LIMIT {enough}) AS new)
       + (SELECT count(*) FROM (
            SELECT FROM unnest({open}::text[]::xid8[]) AS open (xid)
              JOIN {schema}.entry ON entry.stream = newest.id AND entry.xid = open.xid
             LIMIT {enough}) AS late) AS appended,
       (SELECT count(*) FROM {schema}.stream) AS total, pg_current_snapshot()::text AS snapshot
  FROM (SELECT) AS one LEFT JOIN newest ON true
""")
