"""What a program that shows something waits for: a key, another size of the terminal, news from another thread.

As long as it lasts, keys come without Enter and are not echoed; in the end the terminal is as it was, whatever
happened.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any, Self

from pgpubsub.cli.interruption import Interruption

__all__ = ["Attention"]

QUITS = frozenset(b"qQ\x04")  # with Ctrl-D


class Attention(AbstractContextManager["Attention"]):
    """`keys`: whether somebody looks, and standard input, if that is a terminal, is for keys."""

    def __init__(self, interruption: Interruption, *, keys: bool) -> None:
        self._interruption = interruption
        self._keys = keys and sys.stdin is not None and sys.stdin.isatty()
        self._watches_size = keys
        self._inbox, self._outbox = os.pipe()
        for end in (self._inbox, self._outbox):
            os.set_blocking(end, False)
        self._before: list[Any] | None = None

    def __enter__(self) -> Self:
        if self._watches_size:
            signal.signal(signal.SIGWINCH, lambda number, frame: self.wake())
        if self._keys:
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin, termios.TCSANOW)
            changed = termios.tcgetattr(sys.stdin)
            # A listener that is stopped, by Ctrl-Z, holds up the notification queue of the whole server.
            changed[6][termios.VSUSP] = bytes([os.fpathconf(sys.stdin.fileno(), "PC_VDISABLE")])
            termios.tcsetattr(sys.stdin, termios.TCSANOW, changed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._before is not None:
            with suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(sys.stdin, termios.TCSANOW, self._before)
        if self._watches_size:
            signal.signal(signal.SIGWINCH, signal.SIG_DFL)

    def wake(self) -> None:
        """End the waiting. For other threads and signal handlers."""
        with suppress(BlockingIOError):  # it is full of such
            os.write(self._outbox, b"!")

    def wait(self, seconds: float) -> bool:
        """Wait for anything, no longer than `seconds`. Returns whether the program is to go on.

        Raises:
            SystemExit: a signal has come.
        """
        keys = [sys.stdin.fileno()] if self._keys else []
        with self._interruption.breaking():
            ready, _, _ = select.select([self._inbox, *keys], [], [], max(0.0, seconds))
        if self._inbox in ready:
            os.read(self._inbox, 4096)
        return not (keys and keys[0] in ready and self._quits(keys[0]))

    def _quits(self, keyboard: int) -> bool:
        try:
            typed = os.read(keyboard, 4096)
        except OSError:  # the terminal is gone
            typed = b""
        return not typed or not QUITS.isdisjoint(typed)
