"""Finishing when the process is told to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["finishing_on_sigterm"]

_finishers: list[Callable[[], object]] = []


@contextmanager
def finishing_on_sigterm(finish: Callable[[], object]) -> Iterator[None]:
    """Have `finish` called when SIGTERM comes, beside others that are here. It may be called at any moment of the main
    thread. A second one ends the process, as by default: a handler may never end. A program that handles SIGTERM itself
    is left to do so; and only the main thread can see to it."""
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    _finishers.append(finish)
    if mine:
        signal.signal(signal.SIGTERM, _finish)
    try:
        yield
    finally:
        _finishers.remove(finish)
        if (
            not _finishers
            and signal.getsignal(signal.SIGTERM) is _finish
            and (threading.current_thread() is threading.main_thread())
        ):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _finish(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    for finish in list(_finishers):
        finish()
    if not _finishers:  # the last one was in another thread, which could not see to this
        signal.raise_signal(number)
