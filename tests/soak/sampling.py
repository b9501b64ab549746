"""What others can say of a process: the system, and the server that it is connected to."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg

__all__ = ["Sampler"]

OTHERS = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"

CONNECTIONS = f"SELECT count(*) {OTHERS}"

QUEUE = "SELECT pg_notification_queue_usage() * 100"

RELATIONS = """
SELECT n.nspname || '.' || c.relname, pg_total_relation_size(c.oid)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND n.nspname IN ('public', 'pgpubsub')
"""

TERMINATE = f"""
SELECT application_name, pg_terminate_backend(pid) {OTHERS} AND application_name NOT LIKE 'soak%'
 ORDER BY random() LIMIT 1
"""

MIB = 1 << 20


class Sampler:
    """Looks at one process.

    Args:
        dsn: of the server.
        pid: of the process.
    """

    def __init__(self, dsn: str, pid: int) -> None:
        self._proc = Path("/proc") / str(pid)
        self._conn = psycopg.connect(dsn, autocommit=True, application_name="soak sampler")
        self.relations: dict[str, float] = {}
        """The tables' sizes in MiB, with their indexes, as they were last."""
        (self.server,) = self._conn.execute("SHOW server_version").fetchone() or ("",)

    def take(self) -> dict[str, float]:
        """Everything, by the names of lines."""
        kilobytes = dict(self._kilobytes())
        self.relations = {name: size / MIB for name, size in self._conn.execute(RELATIONS).fetchall()}
        return {
            "rss": kilobytes["Rss"] / 1024,
            "pss": kilobytes["Pss"] / 1024,
            "descriptors": len(os.listdir(self._proc / "fd")),
            "threads": len(os.listdir(self._proc / "task")),
            "connections": self.connections(),
            "queue": self._one(QUEUE),
            "tables": sum(self.relations.values()),
        }

    def connections(self) -> float:
        """How many there are, but for its own."""
        return self._one(CONNECTIONS)

    def terminate_one(self) -> str | None:
        """End a session of the process's, whichever. Returns its name."""
        row = self._conn.execute(TERMINATE).fetchone()
        return None if row is None else str(row[0])

    def close(self) -> None:
        self._conn.close()

    def _one(self, query: str) -> float:
        row = self._conn.execute(query).fetchone()
        assert row is not None
        return float(row[0])

    def _kilobytes(self) -> list[tuple[str, int]]:
        rows = (line.split() for line in (self._proc / "smaps_rollup").read_text().splitlines()[1:])
        return [(row[0].rstrip(":"), int(row[1])) for row in rows]
