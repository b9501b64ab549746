"""Programs of the tests' own in processes of their own, to be killed and paused, and the journals that they leave."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["ROOT", "Journal", "Process", "answers", "is_worker", "limit_descriptors", "with_children"]

ROOT = Path(__file__).parents[2]


class Journal:
    """Lines that are there as soon as they are written, whatever becomes of the process."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *fields: object) -> None:
        """A line: a JSON array of these."""
        os.write(self._file, f"{json.dumps(fields)}\n".encode())


class Process:
    """One program. It is killed in the end.

    Args:
        command: its name and arguments. The path of its journal is `path`, with the ending `.journal`.
        path: what its files are called, without an ending.
        environment: what is different from ours.
    """

    _count = count()

    def __init__(self, command: Sequence[str], path: Path, environment: Mapping[str, str] | None = None) -> None:
        self._path = path
        self.killed = False
        self._read = 0
        self._complete = False
        with open(f"{path}.errors", "ab") as errors:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                bufsize=0,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    @classmethod
    def new_path(cls, directory: Path) -> Path:
        """One that no other has."""
        return directory / f"program {next(cls._count)}"

    def new_lines(self) -> list[list[Any]]:
        """What has been added to its journal since this was last asked."""
        if self._complete:
            return []
        self._complete = self.killed
        with open(f"{self._path}.journal", "ab+") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]  # the last line may be in the writing
        self._read += len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def is_ready(self) -> bool:
        """Whether its journal says so."""
        path = Path(f"{self._path}.journal")
        return path.exists() and b'["ready"' in path.read_bytes()

    @property
    def errors(self) -> str:
        """What it has printed as errors."""
        return Path(f"{self._path}.errors").read_text()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def tell(self, line: object = "") -> None:
        """Write a line to its input."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(f"{line}\n".encode())

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        """Until it has ended. Returns its exit status."""
        return self.process.wait(seconds)

    def kill(self) -> None:
        """It ends at once."""
        killed = self.killed or self.running
        self.process.kill()
        self.process.wait()
        self.killed = killed
        assert self.process.stdin is not None
        self.process.stdin.close()


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def with_children(pid: int) -> list[int]:
    """A process, and those that it has started."""
    try:
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    except FileNotFoundError:
        return [pid]


def is_worker(pid: int) -> bool:
    """Whether it is one of uvicorn's."""
    try:
        return b"multiprocessing.spawn" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def limit_descriptors(pid: int, most: int) -> int:
    """Let a process open so many files at most. Returns what the limit was."""
    with suppress(ProcessLookupError):
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(most, hard), hard))
        return soft
    return most
