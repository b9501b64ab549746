"""A limit for what drivers would wait for without end: the answer of a server that has frozen, or is cut off."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["break_socket", "within"]


@contextmanager
def within(seconds: float, fileno: Callable[[], int]) -> Iterator[None]:
    """After so many seconds, break the connection whose socket `fileno` returns: the driver notices, and raises.

    Raises:
        TimeoutError: that has been done. The driver says that the server had ended the connection.
        OSError: there can be no thread that would do that.
    """
    lock, over, struck = threading.Lock(), False, False

    def on_time() -> None:
        nonlocal struck
        with lock:
            if not over:
                struck = True
                break_socket(fileno)

    timer = threading.Timer(seconds, on_time)
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError as error:
        raise OSError(str(error)) from error
    try:
        yield
    except Exception as error:
        if not struck:
            raise
        raise TimeoutError(f"no answer within {seconds:g} s") from error
    finally:
        timer.cancel()  # which does nothing to one that has begun
        with lock:
            over = True


def break_socket(fileno: Callable[[], int]) -> None:
    """Break the connection whose socket `fileno` returns, from any thread."""
    # It may have broken by itself in the meantime, for which each driver has an error of its own.
    with suppress(Exception):
        its_socket = socket.socket(fileno=fileno())  # not a copy, for which there may be no descriptor left
        try:
            its_socket.shutdown(socket.SHUT_RDWR)
        finally:
            its_socket.detach()
