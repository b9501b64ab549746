"""Opens the connections of the hub: finds out who is at the other end, and sets the session up."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pgpubsub.drivers.interface import in_recovery
from pgpubsub.drivers.psycopg3 import psycopg
from pgpubsub.drivers.psycopg3_connect import answered_within, connect, in_one_line
from pgpubsub.drivers.psycopg3_conninfo import seconds_to_connect, settled
from pgpubsub.drivers.psycopg3_loop import PREPARE, Psycopg3LoopConnection
from pgpubsub.errors import ConnectionFailed

__all__ = ["CHECK_INTERVAL", "CHECK_OFTEN", "SESSION_SETTINGS", "dial"]

WHO_ARE_YOU = "SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery()"

SESSION_SETTINGS = """
SELECT pg_catalog.set_config(name, ours.value, false)
  FROM (VALUES ('idle_session_timeout', '0', true), ('tcp_user_timeout', '30s', false),
               ('tcp_keepalives_idle', '30s', false), ('tcp_keepalives_interval', '10s', false),
               ('tcp_keepalives_count', '3', false)) AS ours (name, value, always)
  JOIN pg_catalog.pg_settings USING (name)
 WHERE ours.always OR source = 'default'
"""
"""Our sessions are idle by profession, and if we vanish without a word the one that listens must not hold up the
server's notification queue for long. What the administrator has set is left alone. Old servers do not know all."""

CHECK_INTERVAL = "5s"
"""How often a server process that is held up, such as by another transaction's lock on NOTIFY, looks whether we are
still there. If it did not, each connection that we give up would leave one behind, which would send what nobody expects
any more. From PostgreSQL 14 on."""

CHECK_OFTEN = """
SELECT pg_catalog.set_config(name, %s, false)
  FROM pg_catalog.pg_settings
 WHERE name = 'client_connection_check_interval' AND source = 'default'
"""


async def dial(conninfo: str, *, listening: bool) -> Psycopg3LoopConnection:
    """Open a connection to a primary: `connect`, and as long as each address has for what follows.

    Raises:
        ConnectionFailed: with the driver's error as the cause.
        ServerInRecovery: it is a standby.
    """
    try:
        conn = await connect(conninfo)
        try:
            with answered_within(seconds_to_connect(settled(conninfo)), conn):
                return await _prepare(conn, listening)
        except BaseException:
            await conn.close()
            raise
    except (psycopg.Error, OSError, UnicodeError) as error:
        raise ConnectionFailed(f"cannot connect to PostgreSQL: {in_one_line(error)}") from error


async def _prepare(conn: psycopg.AsyncConnection[Any], listening: bool) -> Psycopg3LoopConnection:
    row = await (await conn.execute(WHO_ARE_YOU)).fetchone()
    assert row is not None
    server_pid, standby = row
    if standby:
        raise in_recovery("pg_is_in_recovery() is true")
    pooled = server_pid != conn.info.backend_pid
    if listening or not pooled:  # what is pooled belongs to others too
        await conn.execute(SESSION_SETTINGS)
    if not listening and not pooled:
        await conn.execute(PREPARE.encode())
        with suppress(psycopg.Error):  # where the server's system cannot do that
            await conn.execute(CHECK_OFTEN, [CHECK_INTERVAL])
    return Psycopg3LoopConnection(conn, server_pid, prepared=not listening and not pooled)
