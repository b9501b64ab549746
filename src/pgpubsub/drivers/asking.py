"""Questions to a server that may be in trouble, or belong to a pooler.

Each is a read-only transaction of its own, set up within it and sent in one message: one round trip, which a pooler
passes on whole, and no setting stays on a server process that others use. The server ends it if it takes too long. It
does not promise an end where the server does not answer at all: for that, break the connection off.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from psycopg.rows import namedtuple_row
from psycopg.sql import SQL, Composed, Literal

from pgpubsub.drivers.psycopg3 import psycopg

__all__ = ["Question", "ask"]

Question = str | SQL | Composed

BEGIN = SQL("""
BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY;
SET LOCAL statement_timeout = {time}; SET LOCAL lock_timeout = {time};
SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL standard_conforming_strings = on;
SET LOCAL row_security = off; SET LOCAL extra_float_digits = 1; SET LOCAL jit = off;
""")
"""Whatever a role has set otherwise. A serializable transaction is refused by standbys, and may be made to wait for
others. Nobody's functions are taken for PostgreSQL's. Rows that a policy hides are an error, not none. Numbers come
whole. Compiling (jit) takes seconds where many rows are expected."""


def ask(conn: psycopg.Connection[Any], question: Question, parameters: Any = None, *, milliseconds: int) -> list[Any]:
    """What a question returns: named tuples. It may be several statements, of which the last one's count.

    Args:
        conn: in autocommit mode.
        parameters: as psycopg takes them. They are put in here, as text.
        milliseconds: that the server may take, more than 0.

    Raises:
        psycopg.Error: what the server, or the connection, has against it; `QueryCanceled` and `LockNotAvailable` if it
            took too long. The transaction has ended.
    """
    with psycopg.ClientCursor(conn, row_factory=namedtuple_row) as cursor:
        begin = BEGIN.format(time=Literal(milliseconds)).as_string(conn)
        text = question if isinstance(question, str) else question.as_string(conn)
        try:
            cursor.execute(f"{begin} {text}; COMMIT".encode(), parameters)
            rows: list[Any] = []
            while True:
                if cursor.description is not None:
                    rows = cursor.fetchall()
                if not cursor.nextset():
                    return rows
        finally:
            if not conn.closed and conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                with suppress(psycopg.Error):
                    conn.execute("ROLLBACK")
