"""All clients of one server: the program in load.c, which is compiled when it is first needed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from select import select
from shutil import which
from tempfile import TemporaryDirectory
from time import monotonic, monotonic_ns
from typing import IO

__all__ = ["Clients", "Got", "clients", "missing"]

SOURCE = Path(__file__).with_name("load.c")

CONNECTING = 240.0
"""Seconds that they may take to connect."""


def missing() -> str | None:
    """Why there are none, if there are none."""
    return None if which("cc") else "its clients take a C compiler"


@dataclass(frozen=True)
class Got:
    """What clients have got of some messages."""

    expected: int
    """Deliveries: of each message to each client."""
    arrived: int
    disordered: int
    """That came after later ones."""
    last: int
    """When the last one came, by `time.monotonic_ns`; 0: nothing came."""
    closed: int
    """Connections that have ended."""
    ages: Sequence[tuple[int, int]]
    """Nanoseconds from sending until they were there, and how many were not older, in ascending order."""

    @property
    def lost(self) -> int:
        """That did not come in time."""
        return self.expected - self.arrived

    def percentile(self, percent: float, otherwise: float) -> float:
        """How many nanoseconds that percentage took at most, of all that were expected; `otherwise`, if so many did not
        come.

        >>> Got(4, 3, 0, 9, 0, [(10, 2), (20, 1)]).percentile(75, 99)
        20
        """
        passed = 0
        for age, count in self.ages:
            passed += count
            if passed >= self.expected * percent / 100:
                return age
        return otherwise


class Clients:
    """See the module."""

    def __init__(self, number: int, orders: IO[str], answers: IO[str]) -> None:
        self._number = number
        self._orders = orders
        self._answers = answers
        self._expected = 0
        self._deadline = 0.0

    def count(self, messages: int, seconds: float) -> None:
        """Begin to count messages that are sent after this; for so many seconds at most."""
        self._orders.write(f"{messages} {seconds} {monotonic_ns()}\n")
        self._orders.flush()
        self._expected = messages * self._number
        self._deadline = monotonic() + seconds + 30
        self.wait_for("counting", 30)

    def got(self) -> Got:
        """What has come, once all has, or it is time."""
        arrived, disordered, last, closed, *ages = map(int, self._line(self._deadline).split())
        pairs = list(zip(ages[::2], ages[1::2], strict=True))
        return Got(self._expected, arrived, disordered, last, closed, pairs)

    def wait_for(self, word: str, seconds: float = CONNECTING) -> None:
        """Wait until they say so."""
        line = self._line(monotonic() + seconds)
        assert line.strip() == word, line

    def _line(self, deadline: float) -> str:
        if not select([self._answers], [], [], max(0, deadline - monotonic()))[0]:
            raise TimeoutError("the clients do not answer")
        line = self._answers.readline()
        if not line:
            raise ConnectionError("the clients have ended; see above why")
        return line


@contextmanager
def clients(number: int, port: int, path: str) -> Iterator[Clients]:
    """So many, each of which has the head of its response."""
    command = [str(_program()), str(port), str(number), path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            found = Clients(number, process.stdin, process.stdout)
            found.wait_for("live")
            yield found
        finally:
            process.kill()


@cache
def _directory() -> TemporaryDirectory[str]:
    """Made when needed: processes that are started import this, too, and do not get to tidy up."""
    return TemporaryDirectory(prefix="bench-gateway-")


@cache
def _program() -> Path:
    compiler = which("cc")
    assert compiler is not None
    program = Path(_directory().name) / "load"
    subprocess.run([compiler, "-O2", "-o", program, SOURCE], check=True)
    return program
