"""Shell commands that are run for what comes.

Nothing of a message becomes part of the command: the payload is on its standard input, names are in its environment. It
leads a process group, so that a Ctrl-C is for this program, which lets it finish.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping

from pgpubsub.cli.statuses import FAILED, Ended
from pgpubsub.cli.terminal import Terminal

__all__ = ["Command"]

CANNOT_BE_RUN = (126, 127)
"""What the shell says then (POSIX, "Exit Status for Commands"): it will be the same for all that comes."""


class Command:
    """A command, for one thing after the other."""

    def __init__(self, command: str, terminal: Terminal) -> None:
        self.failures = 0
        """How often it failed."""
        self._command = command
        self._terminal = terminal

    def run(self, about: Mapping[str, str], payload: bytes) -> str | None:
        """Run it; returns what went wrong, if anything did.

        Raises:
            Ended: there is no such command, so it need not be tried again.
            SystemExit: a second signal has come, so it was killed.
        """
        self._terminal.flush()
        ours = {f"PGPUBSUB_{name}": value for name, value in about.items()}
        encoded = {name.encode(): value.encode("utf-8", "surrogateescape") for name, value in ours.items()}
        try:
            status = self._status({**os.environb, **encoded}, payload)
        except OSError as error:  # for one thing, if a key or headers are longer than a program may be given
            size = sum(map(len, encoded.values()))
            return self._failed(f"could not be started, with {size:,} bytes about the message: {error.strerror}")
        if status in CANNOT_BE_RUN:
            self._terminal.say(f"{self._command} cannot be run: status {status}")
            raise Ended(FAILED)
        if status:
            return self._failed(f"ended with {f'status {status}' if status > 0 else f'signal {-status}'}")
        return None

    def _failed(self, how: str) -> str:
        self.failures += 1
        return f"{self._command} {how}"

    def _status(self, environment: Mapping[bytes, bytes], payload: bytes) -> int:
        with subprocess.Popen(  # noqa: S602  # to have it run by the shell is what it is for
            self._command, shell=True, stdin=subprocess.PIPE, env=environment, process_group=0
        ) as process:
            try:
                with self._terminal.interruption.finishing():
                    process.communicate(payload)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return process.returncode
