"""Several processes that share their metrics as files, so that a scrape which reaches one tells of all.

That is what Prometheus's client does where `PROMETHEUS_MULTIPROC_DIR` names a directory for the files. Counters of
processes that are gone stay in it, as they should; their gauges are to be removed.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from time import sleep

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

__all__ = ["SEVERAL", "exposition"]

SEVERAL = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable."""


ATTEMPTS, PAUSE = 20, 0.05
"""How often, and after how many seconds, files are read again of which one was just being made."""


def exposition() -> bytes:
    """In Prometheus's text format, of all processes. It blocks, for a moment.

    Gauges of processes that do not run any more are removed first, however these ended: so nobody has to be told of
    their end. The processes have to be this machine's (and not another container's).
    """
    _forget_processes_that_are_gone()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    for _ in range(ATTEMPTS - 1):
        with suppress(struct.error):  # a file that has no size yet
            return generate_latest(registry)
        sleep(PAUSE)
    return generate_latest(registry)


def _forget_processes_that_are_gone() -> None:
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
