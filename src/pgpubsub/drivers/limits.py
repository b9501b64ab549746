"""A limit for what drivers would wait for without end: the answer of a server that has frozen, or is cut off."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["break_socket", "within"]


@contextmanager
def within(seconds: float, fileno: Callable[[], int]) -> Iterator[None]:
    """After so many seconds, break the connection whose socket `fileno` returns: the driver notices, and raises."""
    timer = threading.Timer(seconds, break_socket, (fileno,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def break_socket(fileno: Callable[[], int]) -> None:
    """Break the connection whose socket `fileno` returns, from any thread."""
    # It may have broken by itself in the meantime, for which each driver has an error of its own.
    with suppress(Exception), socket.socket(fileno=os.dup(fileno())) as its_socket:
        its_socket.shutdown(socket.SHUT_RDWR)
