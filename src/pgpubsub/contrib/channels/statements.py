"""What is said to the database: the tables, and the statements on them."""

from __future__ import annotations

from hashlib import md5
from importlib.resources import files
from typing import Any

from pgpubsub.core.entries import check_schema
from pgpubsub.core.sql import quote_identifier, quote_literal
from pgpubsub.drivers.borrowed import Statement, run

__all__ = ["SCHEMA", "Statements", "install", "sql"]

SCHEMA = "pgpubsub_layer"

HINTS = "pgpubsub layer "
"""How the notification channels begin that wake readers."""

QUICK = "(SELECT set_config('synchronous_commit', 'off', true)) AS quick"
"""A message need not survive a crash of the server, so its transaction does not wait for the disk; and with it not the
others that notify, since they wait for each other."""


def sql(schema: str = SCHEMA) -> str:
    """The statements that `install` runs, for a migration.

    >>> import pgpubsub.contrib.channels
    >>> "CREATE UNLOGGED TABLE" in pgpubsub.contrib.channels.sql()
    True
    """
    check_schema(schema)
    text = files("pgpubsub.contrib.channels").joinpath("schema.sql").read_text("utf-8")
    return text.replace("{schema_literal}", quote_literal(schema)).replace("{schema}", quote_identifier(schema))


def install(conn: Any, schema: str = SCHEMA) -> None:
    """Make the tables that a channel layer needs. May be repeated.

    Args:
        conn: a blocking connection, as for `pgpubsub.notify`. What is not in autocommit mode has to be committed.
        schema: where the tables go, any name.

    >>> import psycopg, pgpubsub.contrib.channels
    >>> with psycopg.connect(dsn) as conn:
    ...     pgpubsub.contrib.channels.install(conn)
    """
    text = sql(schema)
    run(conn, Statement(lambda: text), "use a blocking one")


class Statements:
    """Those on the tables of one schema."""

    def __init__(self, schema: str) -> None:
        check_schema(schema)
        self.schema = schema
        within = quote_identifier(schema).replace("%", "%%")  # which else would begin a placeholder
        message, member = f"{within}.message", f"{within}.member"
        salt = quote_literal(f"{schema}/").replace("%", "%%")
        hint = f"pg_notify({quote_literal(HINTS)} || md5({salt} || told.address), '')"
        held = f"(SELECT count(*) FROM {message} AS one WHERE one.address = told.address AND one.expires > now())"

        self.post = f"""
WITH fixed AS (SELECT now() + make_interval(secs => %s) AS expires),
posted AS (
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::int[], %s::bytea[])
             WITH ORDINALITY AS one (name, channel, address, capacity, payload, place)),
told AS (
    SELECT place, address, ARRAY[channel] AS channels, capacity FROM posted WHERE name IS NULL
     UNION ALL
    SELECT posted.place, member.address, array_agg(member.channel), min(member.capacity)
      FROM posted JOIN {member} ON member.name = posted.name AND member.expires > now()
     GROUP BY posted.place, member.address),
held AS (
    SELECT address, {held} FROM (SELECT DISTINCT address FROM told) AS told),
ranked AS MATERIALIZED (
    SELECT told.*, held.count + row_number() OVER (PARTITION BY told.address ORDER BY place) <= capacity AS fits
      FROM told JOIN held USING (address)),
stored AS (
    INSERT INTO {message} (address, channels, payload, expires)
    SELECT ranked.address, ranked.channels, posted.payload, fixed.expires
      FROM {QUICK} CROSS JOIN fixed CROSS JOIN ranked JOIN posted USING (place) WHERE fits ORDER BY place
 RETURNING address),
hinted AS MATERIALIZED (SELECT {hint} FROM (SELECT DISTINCT address FROM stored) AS told)
SELECT place::int, count(*) FILTER (WHERE NOT fits), count(*), (SELECT count(*) FROM hinted)
  FROM ranked GROUP BY place"""
        """Stores messages for channels (`name` is null) and groups, and wakes their readers. Returns the place of each
        that has a receiver, how many addresses it did not fit into, and of how many."""

        self.post_one = f"""
WITH stored AS (
    INSERT INTO {message} (address, channels, payload, expires)
    SELECT told.address, ARRAY[told.channel], told.payload, told.expires
      FROM {QUICK} CROSS JOIN (SELECT now() + make_interval(secs => %s), %s::text, %s::text, %s::int, %s::bytea)
           AS told (expires, channel, address, capacity, payload)
     WHERE {held} < told.capacity
 RETURNING address)
SELECT 1, 1 - count(*)::int, 1, count({hint}) FROM stored AS told"""
        """The same for one message to a channel."""

        self.post_to_group = f"""
WITH new (expires, name, payload) AS (SELECT now() + make_interval(secs => %s), %s::text, %s::bytea),
told AS (
    SELECT address, array_agg(channel) AS channels, min(capacity) AS capacity
      FROM {member} WHERE name = (SELECT name FROM new) AND expires > now() GROUP BY address),
ranked AS MATERIALIZED (SELECT told.*, {held} < capacity AS fits FROM told),
stored AS (
    INSERT INTO {message} (address, channels, payload, expires)
    SELECT ranked.address, ranked.channels, new.payload, new.expires
      FROM {QUICK} CROSS JOIN new CROSS JOIN ranked WHERE fits
 RETURNING address),
hinted AS MATERIALIZED (SELECT {hint} FROM stored AS told)
SELECT 1, count(*) FILTER (WHERE NOT fits), count(*), (SELECT count(*) FROM hinted) FROM ranked"""
        """The same for one message to a group."""

        self.fetch = f"""
WITH first AS MATERIALIZED (
    SELECT wanted.address, one.id, one.size
      FROM unnest(%s::text[], %s::int[]) AS wanted (address, room)
           CROSS JOIN LATERAL (
               SELECT id, octet_length(payload) AS size FROM {message} AS one
                WHERE one.address = wanted.address AND one.expires > now()
                ORDER BY id LIMIT wanted.room FOR UPDATE SKIP LOCKED) AS one),
due AS (
    SELECT address, id
      FROM (SELECT address, id, sum(size) OVER (PARTITION BY address ORDER BY id) - size AS before FROM first) AS one
     WHERE before < %s),
taken AS (
    DELETE FROM {message} AS one USING due WHERE one.address = due.address AND one.id = due.id
 RETURNING one.id, one.address, one.channels, one.payload, extract(epoch FROM one.expires - now())::float8 AS left)
SELECT address, channels, payload, taken.left, id FROM taken ORDER BY id"""
        """Takes, of each address, as many messages and bytes as there is room for, the oldest first."""

        self.give_back = f"""
WITH stored AS (
    INSERT INTO {message} (id, address, channels, payload, expires)
    SELECT id, address, ARRAY[address], payload, now() + make_interval(secs => remaining)
      FROM {QUICK} CROSS JOIN unnest(%s::bigint[], %s::text[], %s::bytea[], %s::float8[])
           AS one (id, address, payload, remaining)
 RETURNING address)
SELECT {hint} FROM (SELECT DISTINCT address FROM stored) AS told"""
        """Stores again what was fetched and nobody took."""

        self.add = f"""
INSERT INTO {member} AS known (name, channel, address, capacity, expires)
SELECT DISTINCT ON (name, channel) name, channel, address, capacity, now() + make_interval(secs => %s)
  FROM unnest(%s::text[], %s::text[], %s::text[], %s::int[]) AS one (name, channel, address, capacity)
 ORDER BY name, channel
    ON CONFLICT (name, channel) DO UPDATE SET expires = excluded.expires, capacity = excluded.capacity"""

        self.discard = f"""
DELETE FROM {member} AS known
 USING (SELECT name, channel FROM {member} JOIN unnest(%s::text[], %s::text[]) AS one (name, channel)
               USING (name, channel) ORDER BY name, channel FOR UPDATE OF member) AS one
 WHERE known.name = one.name AND known.channel = one.channel"""

        self.flush = f"""
WITH mark AS (
    INSERT INTO {message} (address, channels, payload, expires) VALUES ('', '{{}}', '', now() + interval '1 hour')
 RETURNING id),
gone AS (DELETE FROM {message}), left_ AS (DELETE FROM {member})
SELECT id, pg_notify({quote_literal(self.flushed)}, '') FROM mark"""
        """Removes all messages and members, and tells everybody to look up to which id: the mark's, which stays."""

        self.up_to = f"SELECT max(id) FROM {message} WHERE address = ''"
        """The id up to which there was a flush, if there was one lately."""

        self.sweep = f"""
WITH old AS (SELECT address, id FROM {message} WHERE expires <= now() FOR UPDATE SKIP LOCKED),
expired AS (
    DELETE FROM {message} AS one USING old WHERE one.address = old.address AND one.id = old.id RETURNING one.address),
former AS (SELECT name, channel FROM {member} WHERE expires <= now() LIMIT 10000 FOR UPDATE SKIP LOCKED),
gone AS (DELETE FROM {member} AS one USING former WHERE one.name = former.name AND one.channel = former.channel)
SELECT address, count(*)::int FROM expired WHERE address <> '' GROUP BY address"""
        """Removes what has expired. Returns the addresses of messages that nobody took, and their numbers."""

        self.vacuum = f"VACUUM (SKIP_LOCKED, TRUNCATE false) {message}"

        place = quote_literal(f"{quote_identifier(schema)}.message").replace("%", "%%")
        self.may_vacuum = f"SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = {place}::regclass"

    @property
    def flushed(self) -> str:
        """The notification channel that tells of a flush."""
        return self.hint("")

    def hint(self, address: str) -> str:
        """The notification channel that wakes who reads `address`."""
        return HINTS + md5(f"{self.schema}/{address}".encode(), usedforsecurity=False).hexdigest()
