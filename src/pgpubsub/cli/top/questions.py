"""What `pgpubsub top` asks of a server, as SQL. Each question reads a bounded part of each table."""

from __future__ import annotations

from psycopg.sql import SQL

from pgpubsub.doctor.sessions import LISTENS, shown

__all__ = ["ENOUGH", "GROUP", "GROUPS", "HIDDEN", "LISTENERS", "OF_GROUPS", "OF_STREAMS", "QUEUE", "SERVER", "STREAMS"]

OF_STREAMS = ("stream", "entry")
OF_GROUPS = (*OF_STREAMS, "consumer_group", "member", "parked", "slot")
"""The relations that STREAMS, and GROUPS with GROUP, ask."""

ENOUGH = 10_000
"""Entries of a group that are looked at, in each way to find those that are not settled, held up or set aside."""

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
""")  # noqa: S608  # a constant of ours

# A role without the rights of pg_monitor is told of others' sessions that they are there, and what they are called.
HIDDEN = SQL(f"""
SELECT count(*) AS hidden FROM pg_stat_activity
 WHERE datid IS NOT NULL AND usesysid IS NOT NULL AND backend_type IS NULL AND NOT {LISTENS}
""")  # noqa: S608  # a constant of ours

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
