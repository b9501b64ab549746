"""One user at a time: whoever else comes is told so, instead of waiting without knowing why.

A connection to PostgreSQL carries one conversation. Two threads in it get each other's answers, a signal
handler that re-enters it waits for the code that it interrupted, and after `fork()` two processes share it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
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
        # The user, under the only key. Not a lock, which a signal can interrupt after it was taken and before
        # anybody knows: setdefault() takes it in one step, and whoever finds itself there afterwards leaves.
        self._user: dict[str, object] = {}

    @property
    def free(self) -> bool:
        """Whether `run` would be let in, at the moment of asking."""
        return not (self.closed or self._user or self._inherited)

    def check(self) -> None:
        """Raise if the resource cannot be used by anybody, or not in this process."""
        if self._inherited:
            raise ConcurrentUse(
                f"this connection belongs to process {self._process}, which forked this one ({os.getpid()}):"
                " connect after the fork"
            )
        if self.closed:
            raise Closed("this connection was closed")

    def run(self, action: Callable[[], T], *, dispose: Callable[[], None]) -> T:
        """Do `action` as the only user; `dispose` of the resource if it was closed meanwhile."""
        self.check()
        user, me = self._user, object()
        try:
            if user.setdefault("", me) is not me:
                raise ConcurrentUse(
                    "this connection is in use by another thread, or by the code that this signal handler"
                    " interrupted; give each thread a connection of its own"
                )
            return action()
        finally:
            if "" in user and user[""] is me:  # no calls here, after which a signal handler could run
                del user[""]
            if self.closed:
                self.close(dispose)

    def close(self, dispose: Callable[[], None]) -> None:
        """Let nobody in any more, and `dispose` of the resource, now or when its user leaves."""
        self.closed = True
        if self._inherited:
            return
        user, me = self._user, object()
        try:
            if user.setdefault("", me) is me:
                dispose()
        finally:
            if "" in user and user[""] is me:
                del user[""]

    @property
    def _inherited(self) -> bool:
        """Whether `fork()` has brought us into a process to which the resource does not belong."""
        return self._process != os.getpid()
