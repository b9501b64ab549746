"""Two servers, proxies before them, and all who take part, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

import pgpubsub.streams
from pgpubsub.testing import Proxy
from pgpubsub.testing.supervisor import hold_port
from tests.chaos.clock import Clock
from tests.chaos.gateway import SECRET
from tests.chaos.pair import Pair
from tests.chaos.publishing import Publishing
from tests.chaos.receiving import Receiving
from tests.system.processes import Process, answers, with_children
from tests.system.streams import connect, until

__all__ = ["RECEIVERS", "Arena", "Part"]

RECEIVERS = ("Hub", "AsyncHub", "clients")

IMPATIENT = """
from pgpubsub import AsyncHub, Hub
from pgpubsub.core.backoff import backoff
from pgpubsub.streams import source

backoff.__kwdefaults__["maximum"] = 1.0
source.ANSWER = 3.0
for kind in AsyncHub, Hub:
    kind.__init__.__kwdefaults__.update(heartbeat=0.5, heartbeat_timeout=1.0, send_timeout=4.0)
"""
"""What all of them import before anything else (`sitecustomize`). Faults come more often than sessions last, so that
all would soon wait for as long as a hub ever does between two attempts, and for a server that says nothing: half a
minute each. A heartbeat finds what is over too soon for one of ten seconds."""

Make = Callable[[Mapping[str, str]], Process]
"""Makes a process, given the positions where readers go on."""


@dataclass
class Part:
    """One who takes part."""

    make: Make
    proxies: Sequence[Proxy]
    """Between it and the servers; for clients, between them and the gateway."""
    clock: Clock
    process: Process

    @property
    def pids(self) -> list[int]:
        """Its process, and those that this has started: the gateway's workers."""
        return with_children(self.process.process.pid)

    def start(self, positions: Mapping[str, str]) -> None:
        """Start it again after `kill`."""
        self.process = self.make(positions)

    def kill(self) -> None:
        """End it at once."""
        for pid in self.pids[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()


class Arena:
    """See the module.

    Args:
        directory: for journals.
        seed: of what publishers and receivers choose.
        own_disks: see `Pair`.
    """

    def __init__(self, directory: Path, seed: int, *, own_disks: bool) -> None:
        self.parts: dict[str, Part] = {}
        self.server_clock = Clock(directory / "clock of the servers")
        self._directory = directory
        self._first = directory / "first"
        self._chance = Random(seed)
        self._own_disks = own_disks
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._first.mkdir()
        (self._first / "sitecustomize.py").write_text(IMPATIENT)
        with ExitStack() as stack:
            with self.server_clock.of_children():
                self.pair = stack.enter_context(Pair(own_disks=self._own_disks))
            stack.callback(self._end)
            with connect(self.pair.primary.dsn()) as admin:
                pgpubsub.streams.install(admin)
            self.port = int(stack.enter_context(hold_port()).getsockname()[1])
            self._join(stack, "gateway", self._gateway)
            until(lambda: answers(self.port), "the gateway")
            for name in ("Hub", "AsyncHub"):
                self._join(stack, name, self._receiving)
            self._join(stack, "clients", self._receiving)
            self._join(stack, "publishers", self._publishing)
            for name in (*RECEIVERS, "publishers"):
                until(self.parts[name].process.is_ready, name)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _join(
        self, stack: ExitStack, name: str, start: Callable[[str, str, int, Clock, Mapping[str, str]], Process]
    ) -> None:
        clock = Clock(self._directory / f"clock of {name}")
        if name == "clients":
            proxies = [stack.enter_context(Proxy(f"host=127.0.0.1 port={self.port}"))]
            dsn, port = "", proxies[0].port
        else:
            proxies = [stack.enter_context(Proxy(server.dsn())) for server in self.pair.servers]
            ports = ",".join(str(proxy.port) for proxy in proxies)
            dsn = f"host=127.0.0.1,127.0.0.1 port={ports} user=postgres dbname=postgres connect_timeout=2"
            dsn, port = f"{dsn} target_session_attrs=read-write", self.port

        make = partial(start, name, dsn, port, clock)
        self.parts[name] = Part(make, proxies, clock, make({}))

    def _receiving(self, name: str, dsn: str, port: int, clock: Clock, positions: Mapping[str, str]) -> Process:
        path = Process.new_path(self._directory)
        seed = self._chance.randrange(10**9)
        kind: Any = name
        return self._run(path, clock, Receiving(kind, dsn, f"{path}.journal", seed, port, dict(positions)))

    def _publishing(self, name: str, dsn: str, port: int, clock: Clock, positions: Mapping[str, str]) -> Process:
        path = Process.new_path(self._directory)
        return self._run(path, clock, Publishing(dsn, f"{path}.journal", self._chance.randrange(10**9), port))

    def _run(self, path: Path, clock: Clock, settings: Receiving | Publishing) -> Process:
        command = [sys.executable, "-W", "error", "-m", type(settings).__module__, json.dumps(asdict(settings))]
        return Process(command, path, self._environment(clock))

    def _gateway(self, name: str, dsn: str, port: int, clock: Clock, positions: Mapping[str, str]) -> Process:
        secret = self._directory / "secret"
        secret.write_text(SECRET)
        command = [sys.executable, "-m", "pgpubsub", "serve", "--dsn", dsn, "--port", str(port), "--workers", "2"]
        options = ["--jwt-secret-file", str(secret), "--rate", "100000", "--max-behind", "50"]
        return Process([*command, *options], Process.new_path(self._directory), self._environment(clock))

    def _environment(self, clock: Clock) -> dict[str, str]:
        path = os.environ.get("PYTHONPATH")
        return {**clock.environment, "PYTHONPATH": os.pathsep.join(filter(None, (str(self._first), path)))}

    def _end(self) -> None:
        for part in self.parts.values():
            part.kill()
