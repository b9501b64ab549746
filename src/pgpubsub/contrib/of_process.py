"""What each process makes for itself when it first uses it, such as its hub: what a forked child got from its parent is
not usable there."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

from pgpubsub.errors import ConcurrentUse
from pgpubsub.hubs.forking import on_fork

__all__ = ["OfProcess"]

T = TypeVar("T")


class OfProcess(Generic[T]):
    """See the module.

    Args:
        make: makes it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: T | None = None
        self._parents: T | None = None
        self._lock = Lock()

    def get(self) -> T:
        """This process's, which is made if there is none."""
        if self._made is None:
            on_fork(self)  # first: whoever forks while the lock is held has to get another
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def take(self) -> T | None:
        """This process's, if there is one, to be closed: the next that is asked for will be another."""
        with self._lock:
            made, self._made = self._made, None
            return made

    def disown(self, error: ConcurrentUse) -> None:
        """This is a child: see `hubs.forking`."""
        self._lock = Lock()  # whoever held the other is not in this process
        self._parents, self._made = self._made, None  # kept, since it is not for the child to drop
