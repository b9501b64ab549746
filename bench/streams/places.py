"""Servers that wait for a disk, with a database in which everybody has installed what they need.

One waits for the disk of this machine, however long that takes; the other for one that takes a millisecond each time:
a library that is loaded before the server's own (`LD_PRELOAD`) sleeps for so long in place of `fdatasync`, by which
PostgreSQL has its log written unless told otherwise. So nobody profits from a disk that happens to be idle.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from threading import Lock

import psycopg

import pgpubsub.streams
from bench.ground import AS_IT_IS, SLOW, Ground, database
from bench.peers import pgmq, pgqueuer, procrastinate, tables
from pgpubsub.core.position import stream_id
from pgpubsub.testing import TemporaryServer

__all__ = [
    "COLUMNS",
    "DISKS",
    "Disk",
    "HeldServer",
    "fill",
    "on_disk",
    "with_everything",
    "with_streams",
]

DISKS = {SLOW: "a disk of 1 ms", AS_IT_IS: "the disk as it is"}

COLUMNS = "id, key, payload, payload_bytes, headers, appended_at"

SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_sync_method": "fdatasync",
    "max_connections": "500",
    "max_wal_size": "8GB",  # no checkpoint in the midst of a turn
}

SHIM = """
#include <time.h>

int fdatasync(int fd)
{
    struct timespec moment = {0, 1000000};
    (void) fd;
    nanosleep(&moment, 0);
    return 0;
}
"""

INSTALLERS: Mapping[str, Callable[[str], None]] = {
    "psycopg": tables.install,
    "procrastinate": procrastinate.install,
    "pgqueuer": pgqueuer.install,
    "pgmq": pgmq.install,
}
"""By module: what makes its tables in a database."""

_environment = Lock()


class Disk:
    """A server that waits for a disk, through all rounds.

    Args:
        slow: for one that takes a millisecond, in place of the machine's own.
    """

    def __init__(self, slow: bool) -> None:
        self._slow = slow
        self._stack = ExitStack()

    def start(self) -> None:
        server = TemporaryServer(tcp=True, settings=SETTINGS)
        with _environment:
            before = os.environ.get("LD_PRELOAD")
            if self._slow:
                shim = _build_shim(Path(self._stack.enter_context(tempfile.TemporaryDirectory())))
                os.environ["LD_PRELOAD"] = str(shim)
            try:
                self._stack.enter_context(server)
            finally:
                os.environ.pop("LD_PRELOAD", None)
                if before is not None:
                    os.environ["LD_PRELOAD"] = before
        self.dsn = self._stack.enter_context(database(server.dsn(), "streams"))
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            settings = ("fsync", "synchronous_commit", "wal_sync_method")
            found = [connection.execute(f"SHOW {name}".encode()).fetchone() for name in settings]
            assert found == [("on",), ("on",), ("fdatasync",)], found
        with_everything(self.dsn)

    def close(self) -> None:
        self._stack.close()


class HeldServer:
    """A server where a transaction stays open; it does not wait for a disk."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def start(self) -> None:
        self.dsn = self._stack.enter_context(TemporaryServer(tcp=True)).dsn()

    def close(self) -> None:
        self._stack.close()


def on_disk(disk: str, ground: Ground) -> str:
    """The DSN of the database on that disk."""
    return ground.keep([_ON[disk]])[0].dsn


_ON = {SLOW: partial(Disk, True), AS_IT_IS: partial(Disk, False)}


def with_streams(dsn: str) -> None:
    """Install streams in a database."""
    with psycopg.connect(dsn) as connection:
        pgpubsub.streams.install(connection)


def fill(connection: psycopg.Connection, stream: str, count: int) -> None:
    """Have `count` entries of 100 bytes in a stream. They are put into the table, as a restored dump would be: that
    takes a third of the time of appending them."""
    with connection.transaction():
        connection.execute("ALTER TABLE pgpubsub.entry DISABLE TRIGGER USER")
        connection.execute(
            "INSERT INTO pgpubsub.entry (stream, id, xid, slot, key, payload, appended_at)"
            " SELECT %s, nextval('pgpubsub.entry_id'), pg_current_xact_id(),"
            "        number & 31, 'customer ' || number %% 1000, rpad('entry ' || number, 100, 'x'), clock_timestamp()"
            "   FROM generate_series(1, %s) AS number",
            (stream_id(stream), count),
        )
        connection.execute("ALTER TABLE pgpubsub.entry ENABLE TRIGGER USER")
    connection.execute("VACUUM ANALYZE pgpubsub.entry")


def _build_shim(directory: Path) -> Path:
    compiler = which("cc")
    assert compiler is not None, "the slow disk takes a C compiler"
    directory.chmod(0o755)  # the server may run as another user
    source, library = directory / "shim.c", directory / "shim.so"
    source.write_text(SHIM)
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    library.chmod(0o755)
    return library


def with_everything(dsn: str) -> None:
    """Install what everybody needs in a database."""
    with_streams(dsn)
    for module, install in INSTALLERS.items():
        if find_spec(module) is not None:
            install(dsn)
