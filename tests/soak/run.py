"""One run: a server, the process under test, somebody who samples it, and a terminated backend now and then."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

from pgpubsub.testing import TemporaryServer
from tests.soak.lines import LINES
from tests.soak.load import Leak, Load
from tests.soak.sampling import Sampler
from tests.soak.verdict import Growth, growth, warm_up
from tests.system.processes import Process
from tests.system.streams import until

__all__ = ["Found", "run"]

SETTINGS = {"max_connections": "100", "autovacuum": "on", "autovacuum_naptime": "10s"}

EVERY = 60.0
"""Seconds from one terminated backend to the next; in a short run, a sixth of it."""

TOLD = 15
"""Types of objects that are named when memory grows."""


@dataclass
class Found:
    """What a run has shown."""

    seconds: float
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """By name: seconds since the beginning, and values."""
    wrong: list[str] = field(default_factory=list)
    """What was not delivered, or was left behind."""
    done: dict[str, int] = field(default_factory=dict)
    """What the load has done: how often."""
    terminated: list[float] = field(default_factory=list)
    """When a backend was."""
    types: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    """Objects by type: when, and how many of each."""
    relations: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    """Tables: when, and MiB of each."""
    server: str = ""

    def add(self, name: str, second: float, value: float) -> None:
        """A sample of a line."""
        self.lines.setdefault(name, []).append((second, value))

    @property
    def warm_up(self) -> float:
        """Seconds that do not count."""
        return warm_up(self.seconds)

    def growth(self, name: str) -> Growth | None:
        """What has become of a line."""
        its = [(second, value) for second, value in self.lines.get(name, ()) if second >= self.warm_up]
        return growth(its, LINES[name].bound)

    def verdict(self) -> list[str]:
        """What is wrong; nothing, if all is well."""
        found = [f"not as it should be: {words}" for words in self.wrong]
        for name, line in LINES.items():
            its = self.growth(name)
            if its is None and self.seconds >= 60:
                found.append(f"{line.title}: too few samples")
            elif its is not None and its.grows:
                found.append(
                    f"{line.title} grows: {its.begun:,.1f} to {its.ended:,.1f} {line.unit}, {its.hourly:+,.1f} an hour,"
                    f" where {its.allowed:,.1f} would be allowed in {its.hours * 60:.0f} minutes"
                )
        if found:
            found += [
                f"  more of type {name}: {before:,} to {after:,}" for name, before, after in self._more(self.types)
            ]
            found += [f"  table {name}: {old:.2f} to {new:.2f} MiB" for name, old, new in self._more(self.relations)]
        return found

    def _more(self, counts: list[tuple[float, dict[str, Any]]]) -> list[tuple[str, Any, Any]]:
        """Those of which there are more at the end than after the warm-up, the greatest first."""
        counted = [its for second, its in counts if second >= self.warm_up]
        if not counted:
            return []
        more = Counter(counted[-1])
        more.subtract(counted[0])
        return [(name, counted[0].get(name, 0), counted[-1][name]) for name, by in more.most_common(TOLD) if by > 0]


def run(seconds: float, directory: Path, leak: Leak = "", leak_every: float = 60) -> Found:
    """Do it, for so many seconds.

    Args:
        directory: an empty one, for files of the process.
        leak, leak_every: something to be found, see `Load`.
    """
    found = Found(seconds)
    with TemporaryServer(settings=SETTINGS) as server:
        path = Process.new_path(directory)
        insight = min(10.0, seconds / 60)
        load = Load(server.dsn(), str(directory), f"{path}.journal", insight, leak, leak_every)
        command = [sys.executable, "-W", "error", "-m", "tests.soak.load", json.dumps(asdict(load))]
        with Process(command, path) as process:
            until(lambda: process.new_lines() or not process.running, "the beginning")
            sampler = Sampler(server.dsn(), process.process.pid)
            found.server = sampler.server
            _watch(process, sampler, found)
            _end(process, sampler, found)
            sampler.close()
            if process.errors:
                found.wrong.append(f"it has printed: {process.errors[-5000:]}")
    return found


def _watch(process: Process, sampler: Sampler, found: Found) -> None:
    """Until its time is over."""
    begun = monotonic()
    every = min(EVERY, found.seconds / 6)
    pause = min(1.0, found.seconds / 60)
    terminate_at = begun + every / 2
    ends = begun + found.seconds
    while monotonic() < ends and process.running:
        now = monotonic()
        for name, value in sampler.take().items():
            found.add(name, now - begun, value)
        found.relations.append((now - begun, sampler.relations))
        _take_in(process, begun, found)
        if now >= terminate_at and now < ends - every / 2:
            terminate_at += every
            if sampler.terminate_one() is not None:
                found.terminated.append(now - begun)
        Event().wait(max(0.0, now + pause - monotonic()))
    if not process.running:
        found.wrong.append("the process has ended")


def _take_in(process: Process, begun: float, found: Found) -> list[list[Any]]:
    """What it says of itself. Returns what is no sample."""
    others = []
    for line in process.new_lines():
        if line[0] != "sample":
            others.append(line)
            continue
        _, at, facts = line
        second = at - begun
        for kind, (p50, p99, _count) in facts["latencies"].items():
            found.add(f"{kind} p50", second, p50)
            found.add(f"{kind} p99", second, p99)
        if objects := facts.get("objects"):
            found.types.append((second, objects.pop("types")))
            for name, value in objects.items():
                found.add(name, second, value)
    return others


def _end(process: Process, sampler: Sampler, found: Found) -> None:
    """Have it end its load, tell what became of it, and close everything."""
    said: dict[str, list[Any]] = {}

    def has_said(word: str) -> bool:
        said.update({line[0]: line[1:] for line in _take_in(process, float("inf"), Found(0))})
        return word in said or not process.running

    process.tell()
    until(lambda: has_said("closed"), "the end", 240)
    if "closed" not in said:
        found.wrong.append("the process has ended before its time")
        return
    wrong, found.done = said["settled"]
    found.wrong += wrong
    found.wrong += [f"a thread was left: {name}" for name in said["closed"][0]]
    try:
        until(lambda: not sampler.connections(), "an end of all connections", 10)
    except AssertionError:
        found.wrong.append(f"{sampler.connections():.0f} connections were left")
