"""Several processes that share their metrics as files, so that a scrape which reaches one tells of all.

That is what Prometheus's client does where `PROMETHEUS_MULTIPROC_DIR` names a directory for the files. Counters of
processes that are gone stay in it, as they should; their gauges are to be removed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

__all__ = ["SEVERAL", "forget_processes_that_are_gone"]

SEVERAL = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable."""


def forget_processes_that_are_gone() -> None:
    """Remove the gauges of processes that do not run any more, however they ended: before a scrape is answered, so that
    nobody has to be told of their end. They have to be this machine's (and not another container's)."""
    for pid in {file.stem.rpartition("_")[2] for file in Path(os.environ[SEVERAL]).glob("gauge_live*.db")}:
        if pid.isdecimal() and not _runs(int(pid)):
            with suppress(FileNotFoundError):  # another process does the same
                mark_process_dead(int(pid))  # type: ignore[no-untyped-call]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
