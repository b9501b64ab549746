"""An event loop in a thread of its own, and calls into it from other threads."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

from pgpubsub.errors import Closed, ConcurrentUse

__all__ = ["LoopThread"]

T = TypeVar("T")


class _Call(Generic[T]):
    """A coroutine that runs in the loop while another thread waits for its outcome.

    What they share is one lock that is released once, so that a signal handler may interrupt the waiting thread
    anywhere without the loop ever having to wait for it.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._done = threading.Lock()
        self._done.acquire()
        self._task: asyncio.Task[T] | None = None
        self._cancelled = False

    def start(self) -> None:
        """In the loop: begin."""
        self._task = asyncio.get_running_loop().create_task(self._coroutine)
        self._task.add_done_callback(lambda task: self._done.release())
        if self._cancelled:
            self._task.cancel()

    def cancel(self) -> None:
        """In the loop: nobody waits any more."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    def drop(self) -> None:
        """The loop will not begin it."""
        self._coroutine.close()

    def wait(self, timeout: float | None) -> bool:
        """Whether the outcome has come within `timeout` seconds."""
        return self._done.acquire(timeout=-1 if timeout is None else timeout)

    def result(self) -> T:
        """The outcome, once it has come."""
        assert self._task is not None
        if self._task.cancelled():
            raise Closed("the hub was closed")
        return self._task.result()


class LoopThread:
    """See the module. A daemon thread: it does not keep the program from ending."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="pgpubsub hub", daemon=True)

    def start(self) -> None:
        """Begin. What was posted before is done then."""
        self._thread.start()

    def discard(self) -> None:
        """Close it, instead of starting it."""
        self._loop.close()

    def call(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any, timeout: float | None = None) -> T:
        """Run a coroutine function there and return its outcome.

        Raises:
            TimeoutError: it was not there within `timeout` seconds; the coroutine is cancelled.
            Closed: the loop has ended.
            ConcurrentUse: called from its own thread, which it would stop, or in a forked child.
        """
        self.check_process()
        if threading.current_thread() is self._thread:
            raise ConcurrentUse("the hub's own thread cannot wait for the hub: its observer must only take notes")
        call = _Call(function(*args))
        if not self.post(call.start):
            call.drop()
            raise Closed("the hub was closed")
        try:
            if not call.wait(timeout):
                raise TimeoutError(f"no outcome within {timeout} s")
        except BaseException:
            self.post(call.cancel)
            raise
        return call.result()

    def post(self, function: Callable[..., object], *args: Any) -> bool:
        """Have `function` called there soon. False when the loop has ended. May be called from anywhere."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return False
        return True

    def check_process(self) -> None:
        """Raise if this is a forked child, which has the loop but not the thread."""
        if os.getpid() != self._process:
            raise ConcurrentUse(
                f"this hub belongs to process {self._process}, and this is {os.getpid()}: make a hub here"
            )

    def finish(self, function: Callable[..., Coroutine[Any, Any, object]], *args: Any) -> None:
        """There: run a last coroutine function, then end the loop. May be repeated."""
        task = self._loop.create_task(function(*args))
        task.add_done_callback(lambda task: self._loop.stop())

    def join(self, timeout: float) -> None:
        """Wait until it has ended, at most `timeout` seconds. In its own thread, do not."""
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            # Calls that came last have to be told, and those that nobody began are begun and cancelled.
            loop.run_until_complete(asyncio.sleep(0))
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            with suppress(RuntimeError):
                loop.close()
