"""Signals that end a program, made into a request that it looks at between two steps.

An exception raised by a signal handler can hit anywhere: between starting a process and knowing of it, in the
middle of an escape sequence, inside a destructor that swallows it. What is only noted can do no harm. Where a program
waits, and has nothing to lose, it says so: `breaking`. Where it waits for what should come to its end, a second signal
is taken for insistence: `finishing`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interruption"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Notes these signals, from its construction until `over`."""

    def __init__(self) -> None:
        self.status = 0
        """What the program exits with when it was interrupted, as a shell would report it; else 0."""
        self._come = 0
        self._raises_from = 0  # so many on; 0: never
        # Those that we were started to ignore, as by nohup, stay ignored.
        self._signals = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        for number in self._signals:
            signal.signal(number, self._note)

    def check(self) -> None:
        """Leave the program if one has come."""
        if self.status:
            raise SystemExit(self.status)

    @contextmanager
    def breaking(self) -> Iterator[None]:
        """Within this, leave the program as soon as one comes, wherever that is; or at once, if one has come."""
        with self._raising(1):
            self.check()
            yield

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Within this, one more than have come leaves the program, but the first does not."""
        with self._raising(max(2, self._come + 1)):
            yield

    def over(self) -> None:
        """There is nothing left to clean up: from now on they end the process, without a traceback."""
        for number in self._signals:
            signal.signal(number, signal.SIG_DFL)

    @contextmanager
    def _raising(self, come: int) -> Iterator[None]:
        outside, self._raises_from = self._raises_from, come
        try:
            yield
        finally:
            self._raises_from = outside

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.status = self.status or 128 + number
        self._come += 1
        if self._raises_from and self._come >= self._raises_from:
            self._raises_from = 0
            raise SystemExit(self.status)
