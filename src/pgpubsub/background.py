"""One call in a thread of its own, awaited as long as the caller likes, as often as the caller likes.

Opening a connection resolves names and tries addresses one after the other; no driver lets that be cut off at
an arbitrary moment. So it is done here, and whoever waits may come back for the result later.
"""

from __future__ import annotations

import asyncio
import threading
from _thread import start_new_thread
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

__all__ = ["BackgroundCall", "outcome"]

T = TypeVar("T")


class BackgroundCall(Generic[T]):
    """Makes `call` in a thread from `start` on. `on_done` is called there when the outcome is there.

    >>> call = BackgroundCall(lambda: 6 * 7)
    >>> call.start()
    >>> call.result()
    42
    """

    def __init__(self, call: Callable[[], T], on_done: Callable[[], None] = lambda: None) -> None:
        self._call = call
        self._on_done = on_done
        self._value: T | None = None
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._dispose: Callable[[T | None], None] | None = None
        self._done = threading.Event()
        self._started = False

    def start(self) -> None:
        """Start it, unless it was started. In one step, since a signal may interrupt `threading.Thread.start` and
        leave nobody to know whether it did."""
        if not self._started:
            self._started = True
            try:
                start_new_thread(self._run, ())
            except RuntimeError:  # there can be no more threads
                self._started = False
                raise

    @property
    def done(self) -> bool:
        """Whether the outcome is there."""
        return self._done.is_set()

    def result(self) -> T:
        """Wait for the outcome: return it, or raise what the call raised."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # set where there is no error

    def abandon(self, dispose: Callable[[T | None], None]) -> None:
        """Nobody will ask for the outcome. `dispose` gets the result (None after an error): now, or in the
        call's thread when it comes."""
        with self._lock:
            self._dispose = dispose
            come = self.done
        if come:
            dispose(self._value)

    def when_done(self, on_done: Callable[[], None]) -> None:
        """Have `on_done` called in place of the one before: in the call's thread, or now if the outcome is there."""
        with self._lock:
            self._on_done = on_done
            come = self.done
        if come:
            on_done()

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:  # raised where the result is asked for
            self._error = error
        with self._lock:
            self._done.set()
            dispose, on_done = self._dispose, self._on_done
        if dispose is not None:
            dispose(self._value)
        on_done()


async def outcome(call: BackgroundCall[T]) -> T:
    """What comes of a call that was started, for a task. Cancelled, it leaves the call alone: it may be awaited again,
    by one task at a time.

    Not asyncio's own threads: they are few, others have them busy, and there are none once the main thread has ended.
    """
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def tell() -> None:
        if not done.done():
            done.set_result(None)

    def on_done() -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell)

    call.when_done(on_done)
    await done
    return call.result()
