"""A standby of a temporary server."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from pgpubsub.testing import TemporaryServer

CATCH_UP_TIMEOUT = 20.0
"""Seconds."""


class Standby:
    """A hot standby that streams from its primary, on a port of its own.

    Args:
        primary: is copied.
        source: a connection string to stream from, if that goes by way of something that cuts it off.
        settings: of the server; some must not be lower than the primary's.
    """

    def __init__(
        self, primary: TemporaryServer, source: str | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.primary = primary
        source = source or primary.dsn(application_name="standby")
        self.server = TemporaryServer(
            primary.binaries, tcp=True, settings={"primary_conninfo": source, **(settings or {})}
        )
        """To be stopped, crashed and frozen like any other."""

    def __enter__(self) -> Self:
        self.server.__enter__()
        try:
            self._copy_primary()
        except BaseException:
            self.server.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.server.__exit__(kind, error, traceback)

    def dsn(self, **keywords: object) -> str:
        """A connection string; `keywords` are libpq's."""
        return self.server.dsn(**keywords)

    def promote(self) -> None:
        """Make it a primary, which it is when this returns. The old one is not told."""
        with psycopg.connect(self.dsn(), autocommit=True) as admin:
            assert admin.execute("SELECT pg_promote()").fetchone() == (True,)

    def pause(self) -> None:
        """Replay nothing more of what arrives, until it is resumed or promoted."""
        with psycopg.connect(self.dsn(), autocommit=True) as admin:
            admin.execute("SELECT pg_wal_replay_pause()")
            deadline = time.monotonic() + CATCH_UP_TIMEOUT
            while admin.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() != ("paused",):
                assert time.monotonic() < deadline, "the standby does not pause"
                threading.Event().wait(0.005)

    def resume(self) -> None:
        """Go on after `pause`."""
        with psycopg.connect(self.dsn(), autocommit=True) as admin:
            admin.execute("SELECT pg_wal_replay_resume()")

    def catch_up(self) -> None:
        """Wait until all that the primary has written up to now can be seen."""
        with psycopg.connect(self.primary.dsn(), autocommit=True) as primary:
            written = primary.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        assert written is not None
        deadline = time.monotonic() + CATCH_UP_TIMEOUT
        with psycopg.connect(self.dsn(), autocommit=True) as standby:
            while standby.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", written).fetchone() != (True,):
                assert time.monotonic() < deadline, f"the standby has not replayed up to {written[0]}"
                threading.Event().wait(0.005)

    def _copy_primary(self) -> None:
        self.server.stop()
        back_up(self.primary.dsn(), self.server)
        (self.server.directory / "data" / "standby.signal").touch()
        self.server.start()


def back_up(source: str, server: TemporaryServer, *options: str) -> None:
    """Have a server that is stopped have the data of the one at `source`; `options` are pg_basebackup's."""
    data = server.directory / "data"
    shutil.rmtree(data)
    command: list[str | Path] = [server.binaries / "pg_basebackup", "-d", source, "-D", data, *options]
    command += ["--wal-method=stream", "--checkpoint=fast", "--no-sync"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    own(server, data)


def own(server: TemporaryServer, *paths: Path) -> None:
    """Give them to the user that the server runs as."""
    owner = server.directory.stat()
    for path in [inner for outer in paths for inner in (outer, *outer.rglob("*"))]:
        if not path.is_symlink():
            shutil.chown(path, owner.st_uid, owner.st_gid)


def restart_as_standby(server: TemporaryServer) -> None:
    """The server comes back at the same place, in recovery, and takes nothing from anybody."""
    server.stop()
    (server.directory / "data" / "standby.signal").touch()
    server.start()
