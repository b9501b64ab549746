"""pgbench, PostgreSQL's own load generator: how many transactions with one statement the server commits, with so many
connections. The limit for all who send one notification, or store one row, in a transaction of its own."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from functools import cache
from shutil import which
from tempfile import NamedTemporaryFile

from bench.callers import POOL_SIZES, Calls
from bench.ground import CHANNEL
from bench.peers.peer import Peer
from bench.peers.tables import insert
from pgpubsub.testing.server import find_binaries

__all__ = ["PEER", "Inserts", "Notifies", "missing", "version"]

PEER = Peer(
    "pgbench",
    "",
    "a script of one statement, prepared (`-M prepared`), from two threads (`-j 2`); a turn takes a second at least",
    "https://www.postgresql.org/docs/current/pgbench.html",
    "what is received: it only sends",
)

LONGEST = 300

PROCESSED = re.compile(r"number of transactions actually processed: (\d+)")
RATE = re.compile(r"tps = ([\d.]+) \(without initial connection time\)")


@cache
def _program() -> str | None:
    """That of the servers that are measured, or the system's."""
    own = find_binaries() / "pgbench"
    return str(own) if own.exists() else which("pgbench")


def missing() -> str | None:
    """Why there is none, if there is none."""
    return None if _program() else "pgbench is not installed"


def version() -> str | None:
    """As it tells."""
    if (program := _program()) is None:
        return None
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()


class _Pgbench:
    """A `Called` of which each caller is one of its clients, as far as there are connections."""

    sizes: Sequence[int] = POOL_SIZES
    statement: str

    def open(self, dsn: str, size: int) -> None:
        self._dsn = dsn
        self._size = size

    def call(self, callers: int, seconds: float, *, times: int | None = None, equal: bool = False) -> Calls:
        clients = min(callers, self._size)
        program = _program()
        assert program is not None
        assert not equal, "its payloads are all different"
        long = ["-t", str(times * callers // clients)] if times else ["-T", str(max(1, round(seconds)))]
        with NamedTemporaryFile("w", suffix=".sql") as script:
            script.write(f"\\set number random(1, 1000000000000)\n{self.statement};\n")
            script.flush()
            options = ["-n", "-M", "prepared", "-c", str(clients), "-j", str(min(2, clients)), *long, "-f", script.name]
            run = subprocess.run(
                [program, *options, self._dsn], capture_output=True, text=True, timeout=LONGEST, check=False
            )
        processed, rate = PROCESSED.search(run.stdout), RATE.search(run.stdout)
        if run.returncode or processed is None or rate is None:
            raise ChildProcessError(f"pgbench: {run.stderr.strip()}")
        completed = int(processed[1])
        return Calls(completed, round(1e9 * completed / float(rate[1])))

    def close(self) -> None:
        """It disconnects by itself."""


class Notifies(_Pgbench):
    """Each transaction is one notification."""

    statement = f"SELECT pg_notify('{CHANNEL}', lpad(:number::text, 40, 'x'))"


class Inserts(_Pgbench):
    """Each transaction is one row, with a notification or without."""

    def __init__(self, *, notify: bool) -> None:
        self.statement = insert("lpad(:number::text, 40, 'x')", notify=notify)
