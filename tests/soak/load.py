"""The process under test: `python -m tests.soak.load`, with its settings as JSON.

It begins at once, ends its load upon a line on its input, and itself when that is closed. A journal's lines:

    ready
    sample AT FACTS     every second: latencies and what was done; now and then `objects` too
    settled WRONG DONE  all load has ended, and everybody has got everything, or WRONG says what
    closed THREADS      all is closed, and these threads are left, as they should not be
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Literal

from pgpubsub import AsyncHub, Hub
from tests.soak.channels import Channels
from tests.soak.classic import Classic
from tests.soak.gateway import Gateway
from tests.soak.groups import Groups
from tests.soak.insight import objects
from tests.soak.stage import Stage
from tests.soak.streams import Streams
from tests.system.processes import Journal
from tests.system.streams import until

__all__ = ["Leak", "Load"]

Leak = Literal["", "memory", "descriptors"]

PATIENCE = 60.0
"""Seconds for which the last messages may be on their way."""


@dataclass(frozen=True)
class Load:
    """What it does.

    Args:
        dsn: of an empty database.
        directory: for its files.
        journal: where it says what it finds.
        insight: seconds from one look at its objects to the next.
        leak: something to be found: a KiB of memory for each message that the `Hub` gets, or a descriptor now and then.
        leak_every: seconds from one descriptor to the next.
    """

    dsn: str
    directory: str
    journal: str
    insight: float = 10.0
    leak: Leak = ""
    leak_every: float = 60.0

    def run(self) -> None:
        journal = Journal(self.journal)
        stage = Stage(self.dsn)
        asked = threading.Event()
        with ExitStack() as stack:
            hub = stack.enter_context(Hub(self.dsn))
            tasks = Tasks(stage)
            loads = self._begin(stage, hub, tasks, stack)
            journal.write("ready")
            sampler = threading.Thread(target=self._sample, args=(stage, journal, asked), daemon=True)
            sampler.start()
            sys.stdin.readline()
            stage.quiet.set()
            for thread in stage.senders:
                thread.join(PATIENCE)
            wrong = self._settle(stage, loads)
            asked.set()
            sampler.join()
            stage.over.set()
            journal.write("settled", wrong, dict(stage.done))
            tasks.end()
        for thread in stage.receivers:
            thread.join(10)
        journal.write(
            "closed", [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        )
        sys.stdin.read()

    def _begin(self, stage: Stage, hub: Hub, tasks: Tasks, stack: ExitStack) -> Groups:
        streams = Streams(stage, hub, tasks.hub)
        groups = Groups(stage, hub, tasks.hub, streams)
        classic, channels = Classic(stage, hub), Channels(stage, hub, tasks.hub)
        gateway = Gateway(stage, Path(self.directory))
        with stage.connect() as conn:
            for part in (streams, groups, classic, gateway):
                part.install(conn)
        stack.enter_context(gateway.server)
        everything = (channels, streams, groups, classic, gateway)
        for each in everything:
            each.receive()
        tasks.begin(channels, streams, groups)
        for one in (channels, streams, classic, gateway):
            one.send()
        if self.leak:
            stage.receive(self._leak, stage)
        return groups

    def _settle(self, stage: Stage, groups: Groups) -> list[str]:
        """Wait until everybody has got everything. Returns what is wrong."""
        try:
            until(lambda: not stage.accounts.behind() and not groups.behind(), "everything", PATIENCE)
        except AssertionError:
            stage.accounts.complain(f"has not come: {stage.accounts.behind()} {groups.behind()}")
        more = stage.accounts.count - len(stage.accounts.complaints)
        return [*stage.accounts.complaints, *([f"and {more} more"] if more else [])]

    def _sample(self, stage: Stage, journal: Journal, asked: threading.Event) -> None:
        looked = float("-inf")
        while not asked.wait(1):
            facts: dict[str, object] = {"latencies": stage.latencies.take(), "done": dict(stage.done)}
            if monotonic() - looked >= self.insight:
                looked = monotonic()
                facts["objects"] = objects()
            journal.write("sample", monotonic(), facts)

    def _leak(self, stage: Stage) -> None:
        kept: list[object] = []
        last = 0
        due = monotonic()
        while not stage.over.wait(0.1):
            if self.leak == "memory":
                kept += [bytearray(1024) for _ in range(stage.done["Hub, all"] - last)]
                last = stage.done["Hub, all"]
            elif monotonic() >= due:
                due += self.leak_every
                kept.append(os.dup(0))


class Tasks:
    """The part of it that runs in tasks, in an event loop of its own, in a thread.

    Args:
        stage: where.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.hub = AsyncHub(stage.dsn)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="tasks")
        self._loads: tuple[Channels, Streams, Groups] | None = None

    def begin(self, *loads: object) -> None:
        """Begin, and wait until those are there who have to get everything."""
        channels, streams, groups = loads
        assert isinstance(channels, Channels)
        assert isinstance(streams, Streams)
        assert isinstance(groups, Groups)
        self._loads = channels, streams, groups
        self._thread.start()
        assert self._ready.wait(30)

    def end(self) -> None:
        """Wait until they have all ended."""
        self._thread.join(30)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:
            self._stage.accounts.complain(f"the tasks have ended: {error!r}")

    async def _main(self) -> None:
        assert self._loads is not None
        channels, streams, groups = self._loads
        ready = asyncio.Event()
        async with self.hub, asyncio.TaskGroup() as tasks:
            tasks.create_task(channels.run_tasks(ready))
            tasks.create_task(streams.run_tasks())
            handling = tasks.create_task(groups.run_tasks())
            await ready.wait()
            self._ready.set()
            await asyncio.to_thread(self._stage.over.wait)
            handling.cancel()


if __name__ == "__main__":
    for name in ("pgpubsub", "psycopg"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they tell of terminated backends, as they should
    Load(**json.loads(sys.argv[1])).run()
