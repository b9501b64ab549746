"""The wall clock of some processes, which can be set while they run, as an administrator or NTP sets a machine's.

A library of a few lines (clock.c) stands between them and the C library, and adds what a file says. Nobody can set
CLOCK_MONOTONIC, nor does this.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Clock"]

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """One clock.

    Args:
        file: says how far it is ahead; is made here, and so is the library beside it. There everybody may read.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._library = file.with_name("clock.so")
        if self.possible() and not self._library.exists():
            command: list[str | Path] = ["cc", "-O2", "-shared", "-fPIC", "-o", self._library, SOURCE, "-ldl"]
            subprocess.run(command, check=True, timeout=60)
        file.write_bytes(bytes(8))
        file.chmod(0o644)
        self.was_set = False
        """Whether it was, since somebody said that it was not."""

    @staticmethod
    def possible() -> bool:
        """Whether there is a compiler."""
        return shutil.which("cc") is not None

    def set(self, seconds: float) -> None:
        """It is so far ahead from now on."""
        with self._file.open("r+b") as file:  # in place: it is mapped into memory
            file.write(struct.pack("q", int(seconds * 1e9)))
        self.was_set = True

    @property
    def environment(self) -> dict[str, str]:
        """What a process has to be started with to have this clock."""
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK": str(self._file)} if self.possible() else {}

    @contextmanager
    def of_children(self) -> Iterator[None]:
        """Processes that are started meanwhile have this clock."""
        os.environ.update(self.environment)
        try:
            yield
        finally:
            for name in self.environment:
                del os.environ[name]
