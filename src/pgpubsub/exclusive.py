"""One user at a time: whoever else comes is told so, instead of waiting without knowing why.

A connection to PostgreSQL carries one conversation. Two threads in it get each other's answers, a signal
handler that re-enters it waits for the code that it interrupted, and after `fork()` two processes share it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

from pgpubsub.errors import Closed, ConcurrentUse

__all__ = ["Exclusive"]

T = TypeVar("T")


class Exclusive:
    """Guards one resource.

    >>> use = Exclusive()
    >>> use.run(lambda: use.run(print, dispose=print), dispose=print)
    Traceback (most recent call last):
    pgpubsub.errors.ConcurrentUse: this connection is in use by another thread, ...
    """

    def __init__(self) -> None:
        self.closed = False
        self._process = os.getpid()
        self._busy = Lock()

    @property
    def inherited(self) -> bool:
        """Whether `fork()` has brought us into a process to which the resource does not belong."""
        return self._process != os.getpid()

    @property
    def free(self) -> bool:
        """Whether `run` would be let in, at the moment of asking."""
        return not (self.closed or self.inherited or self._busy.locked())

    def check(self) -> None:
        """Raise if the resource cannot be used by anybody, or not in this process."""
        if self.inherited:
            raise ConcurrentUse(
                f"this connection belongs to process {self._process}, which forked this one ({os.getpid()}):"
                " connect after the fork"
            )
        if self.closed:
            raise Closed("this connection was closed")

    def run(self, action: Callable[[], T], *, dispose: Callable[[], None]) -> T:
        """Do `action` as the only user; `dispose` of the resource if it was closed meanwhile."""
        self.check()
        # Asked first and then waited for: taking a lock in a with statement is the one way that a signal
        # cannot interrupt half-way. Two threads that ask at the very same time just take turns.
        if self._busy.locked():
            raise ConcurrentUse(
                "this connection is in use by another thread, or by the code that this signal handler"
                " interrupted; give each thread a connection of its own"
            )
        try:
            with self._busy:
                return action()
        finally:
            if self.closed:
                self.close(dispose)

    def close(self, dispose: Callable[[], None]) -> None:
        """Let nobody in any more, and `dispose` of the resource, now or when its user leaves."""
        self.closed = True
        if not self.inherited and self._busy.acquire(blocking=False):
            try:
                dispose()
            finally:
                self._busy.release()
