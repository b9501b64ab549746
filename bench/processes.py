"""What processes take: memory, CPU time, wakings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

__all__ = ["Spent", "parent", "proportional", "resident", "settled", "spent"]

PROCESSES = Path("/proc")
ALIKE = 0.01
PAUSE = 0.5
LONGEST = 10.0


class Spent(NamedTuple):
    """Since a process began."""

    cpu: float
    """Seconds of CPU time."""
    wakings: int
    """How often it had waited, and went on."""


def resident(root: int) -> int:
    """Bytes of a process and all that it has started (RSS)."""
    return sum(_kilobytes(process / "status", "VmRSS:") for process in _tree(root)) * 1024


def proportional(root: int) -> int:
    """The same, but what several have in common is divided among them (PSS)."""
    return sum(_kilobytes(process / "smaps_rollup", "Pss:") for process in _tree(root)) * 1024


def spent(root: int) -> Spent:
    """By all threads of a process and of all that it has started, which are there."""
    threads = [thread for process in _tree(root) for thread in (process / "task").glob("*")]
    nanoseconds = wakings = 0
    for thread in threads:
        with suppress(OSError):  # it has ended
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
            wakings += _number(thread / "status", "voluntary_ctxt_switches:")
    return Spent(nanoseconds / 1e9, wakings)


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


def _tree(root: int) -> Iterator[Path]:
    children = _children()
    due = [root]
    while due:
        process = due.pop()
        due += children[process]
        yield PROCESSES / str(process)


def _children() -> defaultdict[int, list[int]]:
    children = defaultdict(list)
    for directory in PROCESSES.glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            children[parent(int(directory.name))].append(int(directory.name))
    return children


def _kilobytes(path: Path, line: str) -> int:
    try:
        return _number(path, line)
    except OSError:
        return 0


def _number(path: Path, line: str) -> int:
    return sum(int(found.split()[1]) for found in path.read_text().splitlines() if found.startswith(line))
