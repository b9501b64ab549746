"""`pgpubsub top` as a process, with a terminal of its own or with pipes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping
from time import monotonic
from types import TracebackType
from typing import Any, Self

__all__ = ["ALTERNATE_ON", "CURSOR_ON", "PROGRAM", "Top", "run", "sample"]

DEADLINE = 30.0
PROGRAM = [sys.executable, "-m", "pgpubsub", "top"]
ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>])")
ALTERNATE_ON, ALTERNATE_OFF = "\x1b[?1049h", "\x1b[?1049l"
CURSOR_OFF, CURSOR_ON = "\x1b[?25l", "\x1b[?25h"
HOME = "\x1b[H"


class Top:
    """A running `pgpubsub top` that leads a session with a terminal of its own, as one started by a shell does."""

    def __init__(
        self, *arguments: str, rows: int = 24, columns: int = 80, environment: Mapping[str, str] | None = None
    ) -> None:
        self.output = ""
        self._ours, self._theirs = pty.openpty()
        self.resize(rows, columns)
        self.settings = self.current_settings()
        settings = {"PYTHONIOENCODING": "utf-8", "TERM": "xterm", "LANG": "C.UTF-8"} | dict(environment or {})
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env={name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")} | settings,
            start_new_session=True,
            preexec_fn=_prepare,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def resize(self, rows: int, columns: int) -> None:
        self.rows = rows
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def current_settings(self) -> list[Any]:
        """The terminal's, as termios has them."""
        return termios.tcgetattr(self._theirs)

    @property
    def screen(self) -> list[str]:
        """The lines of the last picture that was drawn to its end."""
        for drawn in reversed(self.output.split(HOME)):
            lines = [line.rstrip() for line in ESCAPES.sub("", drawn).split("\r\n")]
            if len(lines) == self.rows:
                return lines
        return []

    @property
    def text(self) -> str:
        return "\n".join(self.screen)

    def line(self, *words: str) -> str:
        """The first line with these words; empty if there is none."""
        return next((line for line in self.screen if all(word in line for word in words)), "")

    def expect(self, condition: Callable[[], object]) -> None:
        deadline = monotonic() + DEADLINE
        while not condition():
            assert self.process.poll() is None, f"it has ended: {self.output}"
            assert monotonic() < deadline, self.text or self.output
            self.read()

    def read(self) -> bool:
        if not select.select([self._ours], [], [], 0.05)[0]:
            return False
        try:
            self.output += os.read(self._ours, 65536).decode(errors="replace")
        except OSError:  # how a terminal ends
            return False
        return True

    def end(self) -> int:
        """Wait for its end; the terminal is as it was."""
        deadline = monotonic() + DEADLINE
        while self.process.poll() is None:
            self.read()
            assert monotonic() < deadline, self.output
        while self.read():
            pass
        assert self.current_settings() == self.settings
        assert self.output.rfind(ALTERNATE_OFF) >= self.output.rfind(ALTERNATE_ON)
        assert self.output.rfind(CURSOR_ON) >= self.output.rfind(CURSOR_OFF)
        assert "Traceback" not in self.output
        return self.process.returncode


def _prepare() -> None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # pytest itself may have been started with them ignored
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env={"PYTHONIOENCODING": "utf-8"} | os.environ | environment,
    )


def sample(*arguments: str) -> Any:
    """The only sample of a run into a pipe."""
    done = run(*arguments, "--json", "--interval", "0.3")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    return json.loads(line)
