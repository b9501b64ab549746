"""Who sends notifications without an end, in a process of its own: how fast, and how much memory that takes."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from time import monotonic_ns
from typing import Protocol

import pgpubsub
from bench.child import Pipe, child
from bench.ground import CHANNEL, Ground
from bench.rounds import Figures
from bench.sending.audience import audience

__all__ = ["AsyncHub", "Hub", "stream", "streaming"]

FIRST = 5_000
"""Notifications before the clock starts, for what is imported and allocated once."""


class Streamer(Protocol):
    """Sends one notification after the other."""

    def stream(self, dsn: str, counts: list[int]) -> Generator[None, None, None]:
        """Connect; send the first so many, and pause; the second; disconnect."""


def stream(make: Callable[[], Streamer], ground: Ground) -> list[Figures]:
    """Notifications per second; and by how many MiB the process grows at most meanwhile."""
    listeners = audience(ground)
    counts = [FIRST, ground.effort.streamed]
    with child(_stream, make, listeners.dsn, counts) as pipe:
        took, grown = pipe.recv()
    listeners.expect(sum(counts))
    return [{"per_second": 1e9 * counts[-1] / took, "mib": grown / 2**20}]


def streaming(samples: Sequence[Figures]) -> Figures:
    """Of the one turn."""
    (figures,) = samples
    return figures


def _stream(make: Callable[[], Streamer], dsn: str, counts: list[int], pipe: Pipe) -> None:
    steps = make().stream(dsn, counts)
    next(steps)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
    before, start = _memory("VmRSS"), monotonic_ns()
    next(steps)
    took, peak = monotonic_ns() - start, _memory("VmHWM")
    steps.close()
    pipe.send((took, peak - before))


def _memory(kind: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


def _pairs(count: int) -> Iterator[tuple[str, str]]:
    return ((CHANNEL, f"{number:x>40}") for number in range(count))


class AsyncHub:
    """`await hub.notify_stream()`."""

    def stream(self, dsn: str, counts: list[int]) -> Generator[None, None, None]:
        with asyncio.Runner() as runner:
            hub = runner.run(pgpubsub.AsyncHub(dsn).__aenter__())
            try:
                for count in counts:
                    runner.run(hub.notify_stream(_pairs(count)))
                    yield
            finally:
                runner.run(hub.close())


class Hub:
    """`hub.notify_stream()`."""

    def stream(self, dsn: str, counts: list[int]) -> Generator[None, None, None]:
        with pgpubsub.Hub(dsn) as hub:
            for count in counts:
                hub.notify_stream(_pairs(count))
                yield
