"""Two servers: a primary, and its standby for which each commit waits, so that a failover loses nothing.

Unless it is told that they do not wait, as in many a cluster: then a failover loses what was committed last.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from pgpubsub.testing import TemporaryServer
from tests.system.commits import be_synchronous, wait_for_nobody
from tests.system.standby import back_up, own
from tests.system.streams import connect, until

__all__ = ["Pair"]

SETTINGS = {
    "max_connections": "120",
    "autovacuum": "off",
    "wal_keep_size": "32MB",
    "max_wal_size": "48MB",
    "min_wal_size": "32MB",
    "wal_recycle": "off",
    "wal_retrieve_retry_interval": "100ms",
    "wal_receiver_status_interval": "1s",
    "checkpoint_timeout": "30s",
}

DISK = 160
"""MiB that a server's write-ahead log has, where it has a disk of its own."""


class Pair:
    """See the module.

    Args:
        own_disks: whether the write-ahead logs have file systems of their own, which can be full. That takes root.
    """

    def __init__(self, *, own_disks: bool) -> None:
        self.servers = [TemporaryServer(tcp=True, settings=SETTINGS) for _ in range(2)]
        self.own_disks = own_disks
        self._primary = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
                if self.own_disks:
                    stack.enter_context(self._disk(server))
            self.copy()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def primary(self) -> TemporaryServer:
        return self.servers[self._primary]

    @property
    def standby(self) -> TemporaryServer:
        return self.servers[1 - self._primary]

    def fail_over(self) -> None:
        """The primary is gone, and the standby takes its place, without one of its own."""
        self.primary.stop("immediate")
        self._primary = 1 - self._primary
        with connect(self.primary.dsn()) as admin:
            assert admin.execute("SELECT pg_promote()").fetchone() == (True,)
            wait_for_nobody(admin)

    @contextmanager
    def falling_behind(self) -> Iterator[None]:
        """Meanwhile the standby gets nothing, and commits do not wait for it. Then it takes the primary's place."""
        with connect(self.primary.dsn()) as admin:
            wait_for_nobody(admin)
        self.standby.stop()
        yield
        self.primary.stop("immediate")
        self.standby.start()
        self.fail_over()

    def copy(self) -> None:
        """The other server becomes the standby of the primary, and commits wait for it."""
        self.standby.stop("immediate")
        options = ["--write-recovery-conf"]
        if self.own_disks:
            log = self._log(self.standby)
            for path in log.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            options.append(f"--waldir={log}")
        back_up(self.primary.dsn(application_name="standby"), self.standby, *options)
        if self.own_disks:
            own(self.standby, log)
        self.standby.start()
        with connect(self.primary.dsn()) as admin:
            be_synchronous(admin)
            query = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
            until(
                lambda: admin.execute(query).fetchone(),
                lambda: admin.execute("TABLE pg_stat_replication").fetchall(),
                10,
            )

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Meanwhile the primary has no room for its log, and crashes over and over."""
        filler = self._log(self.primary) / "filler"
        with suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        try:
            with suppress(psycopg.Error), connect(self.primary.dsn()) as admin:
                for _ in range(20):  # until it needs a new file
                    admin.execute("SELECT pg_logical_emit_message(false, 'x', 'y'), pg_switch_wal()")
            yield
        finally:
            filler.unlink()
            self.primary.stop("immediate")  # it may have given up, or is about to
            self.primary.start()

    @contextmanager
    def _disk(self, server: TemporaryServer) -> Iterator[None]:
        server.stop()
        log, its = server.directory / "data" / "pg_wal", self._log(server)
        its.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", its], check=True, timeout=20)
        try:
            shutil.copytree(log, its, dirs_exist_ok=True)
            shutil.rmtree(log)
            log.symlink_to(its)
            own(server, log, its)
            server.start()
            yield
        finally:
            server.stop("immediate")
            subprocess.run(["umount", "--lazy", its], check=True, timeout=20)

    def _log(self, server: TemporaryServer) -> Path:
        return server.directory / "wal"


def fetch(dsn: str, query: Any, *parameters: object) -> list[tuple[Any, ...]]:
    """What a query returns."""
    with connect(dsn) as admin:
        return admin.execute(query, parameters or None).fetchall()
