"""The two helpers of pgpubsub 0.0.5's module `triggers`: a function for all tables, and a trigger for one.

The channel has the table's name, and the payload is the row as JSON with `tg_op` beside the columns. Unlike the old
ones these can be repeated, take any table's name, and never make a write fail: a row that is too long for a
notification is reduced to its key. What does not change is that PostgreSQL delivers equal notifications of a
transaction once: of equal rows, one. New programs use `install`, which says more.
"""

from __future__ import annotations

from typing import Any

from pgpubsub.core.sql import quote_literal
from pgpubsub.drivers.borrowed import Statement, run
from pgpubsub.triggers.definition import quote_table

__all__ = ["create_table_notify_trigger", "create_tables_notify_func"]

FUNCTION = """
DO $do$ BEGIN
-- Others may do the same at the same time.
PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('pgpubsub.triggers', 0));
CREATE OR REPLACE FUNCTION tables_notify_func() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    payload text;
BEGIN
    BEGIN
        IF TG_OP = 'DELETE' THEN
            SELECT row_to_json(one.*)::text INTO payload FROM (SELECT OLD.*, TG_OP) AS one;
        ELSE
            SELECT row_to_json(one.*)::text INTO payload FROM (SELECT NEW.*, TG_OP) AS one;
        END IF;
        IF octet_length(payload) > 7999 THEN
            SELECT json_object_agg(part.key, part.value)::text INTO payload
              FROM (SELECT one.key, one.value
                      FROM json_each(payload::json) WITH ORDINALITY AS one (key, value, place)
                     WHERE one.place = (SELECT count(*) FROM json_each(payload::json))  -- tg_op is the last
                        OR one.key IN (SELECT attribute.attname FROM pg_index AS index
                                         JOIN pg_attribute AS attribute
                                           ON attribute.attrelid = TG_RELID AND attribute.attnum = ANY (index.indkey)
                                        WHERE index.indrelid = TG_RELID AND index.indisprimary)
                     ORDER BY one.place) AS part;
        END IF;
    EXCEPTION WHEN OTHERS OR ASSERT_FAILURE THEN
        payload := NULL;
        BEGIN
            RAISE WARNING 'a change of % could not be told in full: %', TG_RELID::regclass, SQLERRM;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END;
    IF payload IS NULL OR octet_length(payload) > 7999 THEN
        payload := '{"tg_op":"' || TG_OP || '"}';
    END IF;
    IF pg_notification_queue_usage() <= 0.9 THEN  -- full, it would make the transaction fail when it commits
        PERFORM pg_notify(TG_TABLE_NAME, payload);  -- outside the block, within which it would keep its memory
    ELSE
        BEGIN
            RAISE WARNING 'a change of % could not be told: the notification queue is nearly full', TG_RELID::regclass;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END IF;
    RETURN NULL;
END
$body$;
END $do$
"""


def create_tables_notify_func(conn: Any) -> Any:
    """Make the function `tables_notify_func()`, which triggers on any table can call, and commit.

    Args:
        conn: a connection of psycopg2, or another one as for `pgpubsub.notify`.

    Returns:
        A cursor of it, as 0.0.5 did; None where it has none.
    """
    return _run(conn, FUNCTION)


def create_table_notify_trigger(conn: Any, tablename: str) -> Any:
    """Have a table's inserts, updates and deletes told on the channel that has the table's name, and commit.
    `create_tables_notify_func` comes first.

    Args:
        conn: as there.
        tablename: the exact name, or text as PostgreSQL reads it, such as "sales.orders".

    >>> import psycopg, pgpubsub.triggers
    >>> with psycopg.connect(dsn) as conn:
    ...     _ = conn.execute("CREATE TABLE IF NOT EXISTS letter (id int PRIMARY KEY)")
    ...     _ = pgpubsub.triggers.create_tables_notify_func(conn)
    ...     _ = pgpubsub.triggers.create_table_notify_trigger(conn, "letter")
    """
    name, tag = quote_literal(quote_table(tablename)), "$do$"
    while tag in name:
        tag = f"{tag[:-1]}_$"
    return _run(
        conn,
        f"""
        DO {tag}
        DECLARE
            its_table regclass := coalesce(to_regclass(quote_ident({name})), CAST(CAST({name} AS text) AS regclass));
        BEGIN
            PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('pgpubsub.triggers', 0));
            EXECUTE format('DROP TRIGGER IF EXISTS tables_notify_trigger ON %s', its_table);
            EXECUTE format('CREATE TRIGGER tables_notify_trigger AFTER INSERT OR UPDATE OR DELETE ON %s'
                           ' FOR EACH ROW EXECUTE FUNCTION tables_notify_func()', its_table);
        END
        {tag}
        """,  # it is quoted
    )


def _run(conn: Any, text: str) -> Any:
    run(conn, Statement(lambda: text), "use a blocking one")
    if not getattr(conn, "autocommit", False) and hasattr(conn, "commit"):
        conn.commit()
    return conn.cursor() if hasattr(conn, "cursor") else None
