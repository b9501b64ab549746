"""Commits that wait for a standby, so that what waits for them can be looked at for as long as one likes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg

from tests.system.streams import until

COMMIT = "SELECT pg_logical_emit_message(true, 'something', 'to wait for')"
HELD_UP = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"


@contextmanager
def held_up_commits(dsn: str) -> Iterator[None]:
    """Meanwhile, whoever commits waits for a standby that does not exist, unless its `synchronous_commit` is local."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        _hold_up(admin)
        try:
            yield
        finally:
            wait_for_nobody(admin)
            admin.execute(COMMIT)


def be_synchronous(admin: psycopg.Connection[Any]) -> None:
    """Commits wait for the one standby from now on."""
    _hold_up(admin)
    _name_standby(admin, "standby")


def wait_for_nobody(admin: psycopg.Connection[Any]) -> None:
    """Commits wait for no standby any more, as soon as the server has read the setting."""
    admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
    admin.execute("SELECT pg_reload_conf()")


def is_held_up(admin: psycopg.Connection[Any], conn: psycopg.Connection[Any]) -> bool:
    return admin.execute(HELD_UP, [conn.info.backend_pid]).fetchone() is not None


def _hold_up(admin: psycopg.Connection[Any]) -> None:
    """The setting takes effect when another process has read it, which nothing shows but a commit that waits."""
    _name_standby(admin, "nobody")
    with psycopg.connect(admin.info.dsn, autocommit=True) as probe, ThreadPoolExecutor(1) as pool:
        probe.execute("SET synchronous_commit = on")
        while True:
            commit = pool.submit(probe.execute, COMMIT)
            until(lambda: commit.done() or is_held_up(admin, probe))  # noqa: B023
            if not commit.done():
                break
        admin.execute("SELECT pg_cancel_backend(%s)", [probe.info.backend_pid])  # it is committed here, with a warning


def _name_standby(admin: psycopg.Connection[Any], name: str) -> None:
    admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    admin.execute("SELECT pg_reload_conf()")
