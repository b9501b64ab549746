"""What happens to hubs when the process forks: the child has copies of their sockets, and none of their threads.

The child must neither use nor close what is the parent's, and a lock that another thread held at that moment
will never be released there. So every hub that has started is told in the child that it is not its own any more.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

from pgpubsub.errors import ConcurrentUse

__all__ = ["Inheritable", "on_fork"]


class Inheritable(Protocol):
    """What can be copied into a child process."""

    def disown(self, error: ConcurrentUse) -> None:
        """This is the child. Whoever uses this is to be told `error`."""


_all: WeakSet[Inheritable] = WeakSet()


def on_fork(inheritable: Inheritable) -> None:
    """From now on, have `inheritable` disowned in every child process."""
    _all.add(inheritable)


def _in_child() -> None:
    for inheritable in list(_all):
        inheritable.disown(
            ConcurrentUse(
                f"this hub belongs to process {os.getppid()}, which forked this one ({os.getpid()}): make a hub in"
                " each process, or one before the fork that is not used until after it"
            )
        )
    _all.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
