"""Signals that end a program, made into a request that it looks at between two steps.

An exception raised by a signal handler can hit anywhere: between starting a process and knowing of it, in the
middle of an escape sequence, inside a destructor that swallows it. What is only noted can do no harm.
"""

from __future__ import annotations

import signal
from types import FrameType

__all__ = ["Interruption"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Notes the first of these signals, from its construction until `over`. Further ones change nothing."""

    def __init__(self) -> None:
        self.status = 0
        """What the program exits with when it was interrupted, as a shell would report it; else 0."""
        # Those that we were started to ignore, as by nohup, stay ignored.
        self._signals = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        for number in self._signals:
            signal.signal(number, self._note)

    def check(self) -> None:
        """Leave the program if one has come."""
        if self.status:
            raise SystemExit(self.status)

    def over(self) -> None:
        """There is nothing left to clean up: from now on they end the process, without a traceback."""
        for number in self._signals:
            signal.signal(number, signal.SIG_DFL)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.status = self.status or 128 + number
