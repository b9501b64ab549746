"""Contestants in processes that are theirs alone: the CPU time of idleness, and the memory of subscriptions."""

from __future__ import annotations

import asyncio
import gc
import resource
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from time import monotonic, process_time, sleep

import psycopg

import pgpubsub
from bench.child import Pipe, child
from bench.contestants import Receiver
from bench.ground import CHANNEL, Ground
from bench.rounds import Figures

__all__ = ["AsyncHolder", "Holder", "hold", "rest"]


def rest(makes: Sequence[Callable[[], Receiver]], ground: Ground) -> list[Figures]:
    """What idle receivers cost, all at the same time, each with a database of its own: CPU time of their processes
    in milliseconds per second, and how often these were woken per second. The clock runs from one notification to
    the next, for which they wait."""
    with ExitStack() as stack:
        dsns = [stack.enter_context(ground.database(f"idle_{index}")) for index in range(len(makes))]
        pipes = [stack.enter_context(child(_rest, make, dsn)) for make, dsn in zip(makes, dsns, strict=True)]
        for pipe in pipes:
            assert pipe.recv() == "listening"
        for seconds in (0.0, ground.effort.idle_seconds):
            sleep(seconds)
            for dsn in dsns:
                with psycopg.connect(dsn, autocommit=True) as connection:
                    connection.execute("SELECT pg_notify(%s, '')", (CHANNEL,))
        return [pipe.recv() for pipe in pipes]


def _rest(make: Callable[[], Receiver], dsn: str, pipe: Pipe) -> None:
    receiver = make()
    receiver.open(dsn, CHANNEL)
    pipe.send("listening")
    receiver.receive(1)
    gc.collect()
    start, cpu, wakings = monotonic(), process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    receiver.receive(1)
    seconds, cpu = monotonic() - start, process_time() - cpu
    wakings = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - wakings
    receiver.close()
    pipe.send({"cpu_ms_per_s": 1000 * cpu / seconds, "wakings_per_s": wakings / seconds})


def hold(makes: Sequence[Callable[[], AsyncHolder | Holder]], ground: Ground) -> list[Figures]:
    """How much the memory of a fresh process grows with the subscriptions that it holds, in MiB for 10,000."""
    count = ground.effort.held
    with ExitStack() as stack:
        dsn = stack.enter_context(ground.database("memory"))
        pipes = [stack.enter_context(child(_hold, make, dsn, count)) for make in makes]
        return [{"mib": int(pipe.recv()) / 2**20 * 10_000 / count} for pipe in pipes]


def _hold(make: Callable[[], AsyncHolder | Holder], dsn: str, count: int, pipe: Pipe) -> None:
    holder = make()
    holder.hold(dsn, 10)  # what is imported and allocated once
    pipe.send(holder.hold(dsn, count))


class AsyncHolder:
    """Holds subscriptions of an `AsyncHub`.

    Args:
        one_channel: for all of them.
        tasks: a task waits for each.
    """

    def __init__(self, *, one_channel: bool, tasks: bool = False) -> None:
        self._one_channel = one_channel
        self._tasks = tasks

    def hold(self, dsn: str, count: int) -> int:
        """Bytes by which the process grows."""
        return asyncio.run(self._hold(dsn, count))

    async def _hold(self, dsn: str, count: int) -> int:
        async with pgpubsub.AsyncHub(dsn) as hub, AsyncExitStack() as stack:
            before = _resident()
            waiting = []
            for start in range(0, count, 100):
                names = _names(start, 100, one_channel=self._one_channel)
                events = await asyncio.gather(*[stack.enter_async_context(hub.subscribe(name)) for name in names])
                if self._tasks:
                    waiting += [asyncio.create_task(one.get()) for one in events]
            await asyncio.sleep(0)
            grown = _resident() - before
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            return grown


class Holder:
    """Holds subscriptions of a `Hub`, as `AsyncHolder`, without threads that wait."""

    def __init__(self, *, one_channel: bool) -> None:
        self._one_channel = one_channel

    def hold(self, dsn: str, count: int) -> int:
        """Bytes by which the process grows."""
        with pgpubsub.Hub(dsn) as hub, ExitStack() as stack:
            before = _resident()
            for name in _names(0, count, one_channel=self._one_channel):
                stack.enter_context(hub.subscribe(name))
            return _resident() - before


def _names(start: int, count: int, *, one_channel: bool) -> list[str]:
    return [CHANNEL if one_channel else f"{CHANNEL}_{number}" for number in range(start, start + count)]


def _resident() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
