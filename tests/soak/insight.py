"""What a process can say of itself: latencies, and its objects after a collection of garbage."""

from __future__ import annotations

import gc
import sys
import threading
from collections import Counter, defaultdict
from statistics import quantiles
from time import monotonic
from typing import Any

from pgpubsub.core.registry import Registry

__all__ = ["Latencies", "objects"]

TYPES = 60
"""Of objects, that are told apart: those with the most."""


class Latencies:
    """By kind, since they were last asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def since(self, kind: str, begun: float) -> None:
        """Something has come that was sent at `begun`."""
        took = monotonic() - begun
        with self._lock:
            self._seconds[kind].append(took)

    def take(self) -> dict[str, tuple[float, float, int]]:
        """Milliseconds, p50 and p99, and how many there were; and begin anew."""
        with self._lock:
            taken, self._seconds = self._seconds, defaultdict(list)
        found = {}
        for kind, seconds in taken.items():
            if len(seconds) > 1:
                hundredths = quantiles(seconds, n=100, method="inclusive")
                found[kind] = (hundredths[49] * 1000, hundredths[98] * 1000, len(seconds))
        return found


def objects() -> dict[str, Any]:
    """What is left when the garbage is gone: blocks of memory that Python has allocated, objects by type, tasks of all
    event loops, and channels that the server has been told to listen to, for hubs and others."""
    gc.collect()
    blocks = sys.getallocatedblocks()
    everything = gc.get_objects()
    kinds = Counter(map(type, everything))
    channels = sum(len(its.acknowledged) for its in everything if type(its) is Registry)
    named: Counter[str] = Counter()
    for kind, count in kinds.items():
        named[f"{kind.__module__}.{kind.__qualname__}"] += count
    del everything
    return {
        "blocks": blocks,
        "objects": sum(kinds.values()),
        "tasks": named["_asyncio.Task"],
        "channels": channels,
        "types": dict(named.most_common(TYPES)),
    }
