"""How much memory processes have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

__all__ = ["parent", "proportional", "resident", "settled"]

PROCESSES = Path("/proc")
ALIKE = 0.01
PAUSE = 0.5
LONGEST = 10.0


def resident(root: int) -> int:
    """Bytes of a process and all that it has started (RSS)."""
    return _sum(root, "status", "VmRSS:")


def proportional(root: int) -> int:
    """The same, but what several have in common is divided among them (PSS)."""
    return _sum(root, "smaps_rollup", "Pss:")


def settled(measure: Callable[[], int]) -> int:
    """What it measures once that does not change any more."""
    deadline = monotonic() + LONGEST
    before, now = 0, measure()
    while abs(now - before) > ALIKE * now and monotonic() < deadline:
        sleep(PAUSE)
        before, now = now, measure()
    return now


def parent(process: int) -> int:
    """Who has started a process."""
    return int((PROCESSES / str(process) / "stat").read_text().rpartition(")")[2].split()[1])


def _sum(root: int, file: str, line: str) -> int:
    children = _children()
    found, due = 0, [root]
    while due:
        process = due.pop()
        due += children[process]
        found += _kilobytes(PROCESSES / str(process) / file, line)
    return found * 1024


def _children() -> defaultdict[int, list[int]]:
    children = defaultdict(list)
    for directory in PROCESSES.glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            children[parent(int(directory.name))].append(int(directory.name))
    return children


def _kilobytes(path: Path, line: str) -> int:
    try:
        return sum(int(found.split()[1]) for found in path.read_text().splitlines() if found.startswith(line))
    except OSError:
        return 0
