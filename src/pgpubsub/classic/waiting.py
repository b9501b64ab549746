"""Waiting for a socket, a time, or another thread, whichever comes first."""

from __future__ import annotations

import select
import socket
import weakref
from math import ceil
from typing import Any

__all__ = ["Waiter"]

LONGEST = 86_400_000
"""Milliseconds waited in one piece; the system call's argument has 32 bits."""

POLLIN = getattr(select, "POLLIN", 1)


class SelectPoll:
    """`select.poll`, as far as it is needed here, for Windows, which has `select.select` alone."""

    def __init__(self) -> None:
        self._descriptors: set[int] = set()

    def register(self, descriptor: int, events: int) -> None:
        self._descriptors.add(descriptor)

    def poll(self, milliseconds: int | None) -> list[tuple[int, int]]:
        seconds = None if milliseconds is None else milliseconds / 1000
        return [(descriptor, POLLIN) for descriptor in select.select(self._descriptors, [], [], seconds)[0]]


# poll() knows no limit of 1,024 file descriptors and opens none of its own. It is used directly, since the module
# selectors takes three times as long, twice for every notification.
Poll: Any = getattr(select, "poll", SelectPoll)


class Waiter:
    """For one thread that waits and others that may wake it.

    A signal handler that raises ends the wait at once (PEP 475).
    """

    def __init__(self) -> None:
        self._receiving, self._sending = socket.socketpair()
        for end in (self._receiving, self._sending):
            end.setblocking(False)
        self._watched: tuple[int | None, Any] = (None, self._poll_for(None))
        # Closed with this object and not before: a thread may still be in wake().
        weakref.finalize(self, _close, self._receiving, self._sending)

    def wait(self, fd: int | None, timeout: float | None) -> bool:
        """Return when `fd` is readable or broken, when `wake` was called since the last wait, after
        `timeout` seconds (None: never), or without any reason. Says whether it was `fd`."""
        if fd != self._watched[0]:
            self._watched = (fd, self._poll_for(fd))
        ready = False
        for descriptor, _ in self._watched[1].poll(None if timeout is None else min(ceil(timeout * 1000), LONGEST)):
            if descriptor == fd:
                ready = True
            else:
                self._receiving.recv(4096)
        return ready

    def wake(self) -> None:
        """End the wait that is going on or the next one. For any thread and for signal handlers."""
        try:
            self._sending.send(b"\0")
        except OSError:  # full: it has been woken often enough
            pass

    def _poll_for(self, fd: int | None) -> Any:
        poll = Poll()
        poll.register(self._receiving.fileno(), POLLIN)
        if fd is not None:
            poll.register(fd, POLLIN)
        return poll


def _close(*sockets: socket.socket) -> None:
    for end in sockets:
        end.close()
