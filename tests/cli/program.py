"""The program as a process: with pipes, or in a terminal of 80 columns and 24 rows."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

DEADLINE = 30.0


class Program:
    """A running `pgpubsub`."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        terminal: bool = False,
        stdin: bool | IO[bytes] = False,
    ) -> None:
        self.output = ""
        """What it wrote so far to standard output, or the terminal."""
        ours, theirs = pty.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._output = ours
        its_input = subprocess.PIPE if stdin else theirs if terminal else subprocess.DEVNULL
        if not isinstance(stdin, bool):
            its_input = stdin.fileno()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pgpubsub", *arguments],
            stdin=its_input,
            stdout=theirs,
            stderr=theirs if terminal else subprocess.PIPE,
            env={**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", "TZ": "UTC", **environment},
            start_new_session=True,
            preexec_fn=_take_terminal if terminal else _heed_signals,
        )
        os.close(theirs)

    def expect(self, text: str) -> None:
        """Wait until it has written `text`."""
        self.expect_that(lambda: text in self.output)

    def expect_that(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert self._read(), self.output
            assert time.monotonic() < deadline, self.output

    def write(self, text: str) -> None:
        """To its standard input, or as typed at its terminal."""
        if self.process.stdin is None:
            os.write(self._output, text.encode())
        else:
            self.process.stdin.write(text.encode())
            self.process.stdin.flush()

    def signal(self, number: int) -> None:
        """To it and its children, as a terminal does."""
        os.killpg(self.process.pid, number)

    def end(self) -> tuple[int, str]:
        """Wait for its end. Returns its status, and what it wrote to standard error unless that is the terminal."""
        while self._read():
            pass
        error = self.process.stderr.read().decode() if self.process.stderr is not None else ""
        return self.process.wait(DEADLINE), error

    def close_output(self) -> None:
        """Nobody reads any more."""
        os.close(self._output)

    def close_input(self) -> None:
        """Nothing more comes from its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stderr):
            if pipe is not None:
                pipe.close()
        try:
            os.close(self._output)
        except OSError:  # closed already
            pass

    def _read(self) -> bool:
        """Take what it has written; False at the end."""
        assert select.select([self._output], [], [], DEADLINE)[0], f"nothing more came: {self.output}"
        try:
            written = os.read(self._output, 65536)
        except OSError:  # how a terminal ends
            written = b""
        self.output += written.decode(errors="replace")
        return bool(written)


def _heed_signals() -> None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # pytest itself may have been started with them ignored


def _take_terminal() -> None:
    _heed_signals()
    fcntl.ioctl(1, termios.TIOCSCTTY, 0)
