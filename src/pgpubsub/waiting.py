"""Waiting for a socket, a time, or another thread, whichever comes first."""

from __future__ import annotations

import selectors
import socket
import weakref

__all__ = ["Waiter"]

LONGEST = 86_400.0
"""Seconds waited in one piece; the system call's argument is a 32-bit number of milliseconds."""

# poll() knows no limit of 1,024 file descriptors, and opens no descriptor of its own. Windows has select() alone.
Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Waiter:
    """For one thread that waits and others that may wake it.

    A signal handler that raises ends the wait at once (PEP 475).
    """

    def __init__(self) -> None:
        self._selector = Selector()
        receiving, self._sending = socket.socketpair()
        self._receiving = receiving
        for end in (receiving, self._sending):
            end.setblocking(False)
        self._fd: int | None = None
        self._selector.register(receiving, selectors.EVENT_READ)
        # Closed with this object and not before: a thread may still be in wake().
        weakref.finalize(self, _close, receiving, self._sending)

    def wait(self, fd: int | None, timeout: float | None) -> bool:
        """Return when `fd` is readable or broken, when `wake` was called since the last wait, after
        `timeout` seconds (None: never), or without any reason. Says whether it was `fd`."""
        ready = False
        if fd != self._fd:
            self._watch(fd)
        for key, _ in self._selector.select(LONGEST if timeout is None else min(timeout, LONGEST)):
            if key.fileobj is self._receiving:
                self._receiving.recv(4096)
            else:
                ready = True
        return ready

    def wake(self) -> None:
        """End the wait that is going on or the next one. For any thread and for signal handlers."""
        try:
            self._sending.send(b"\0")
        except OSError:  # full: it has been woken often enough
            pass

    def _watch(self, fd: int | None) -> None:
        if self._fd is not None:
            self._selector.unregister(self._fd)
        self._fd = None
        if fd is not None:
            self._selector.register(fd, selectors.EVENT_READ)
        self._fd = fd


def _close(*sockets: socket.socket) -> None:
    for end in sockets:
        end.close()
