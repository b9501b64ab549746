"""An event loop in a thread of its own, and calls into it from other threads."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

from pgpubsub.errors import Closed, ConcurrentUse, PubSubError, again

__all__ = ["AwaitedCall", "Call", "LoopThread"]

T = TypeVar("T")


class Call(Generic[T]):
    """Something that is done in the loop while another thread waits for the outcome.

    What they share is one lock that is released once, so that a signal handler may interrupt the waiting thread
    anywhere without the loop ever having to wait for it.
    """

    def __init__(self) -> None:
        self._done = threading.Lock()
        self._done.acquire()

    def start(self) -> None:
        """In the loop: begin."""
        raise NotImplementedError

    def cancel(self) -> None:
        """In the loop: nobody waits any more. It may not have begun."""
        raise NotImplementedError

    def result(self) -> T:
        """The outcome, once it has come."""
        raise NotImplementedError

    def end(self) -> None:
        """The outcome has come, or the loop has ended. May be repeated."""
        with suppress(RuntimeError):  # it has been released
            self._done.release()

    def wait(self) -> None:
        """Wait for the end."""
        self._done.acquire()


class AwaitedCall(Call[T]):
    """The same for a task in the loop in which this is made. It awaits `ended`."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def end(self) -> None:
        with suppress(RuntimeError):  # that loop has ended
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class _Coroutine(Call[T]):
    """A coroutine function."""

    def __init__(self, function: Callable[..., Coroutine[Any, Any, T]], args: tuple[Any, ...]) -> None:
        super().__init__()
        self._function = function
        self._args = args
        self._task: asyncio.Task[T] | None = None
        self._cancelled = False

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._function(*self._args))
        self._task.add_done_callback(self._on_done)
        if self._cancelled:
            self._task.cancel()

    def cancel(self) -> None:
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    def result(self) -> T:
        if self._task is None or self._task.cancelled():
            raise Closed("the hub was closed")
        return self._task.result()

    def _on_done(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # it is known, even if nobody waits any more
        self.end()


class _AwaitedCoroutine(_Coroutine[T], AwaitedCall[T]):
    """A coroutine function, for a task."""


class LoopThread:
    """See the module. A daemon thread: it does not keep the program from ending.

    Args:
        on_broken: called there, with the loop at rest, if the loop ends without having been told to: by what somebody
            raised in it that is no `Exception`, or stopped it. The error says so, and is raised by the calls that come
            too late.
    """

    def __init__(self, on_broken: Callable[[PubSubError], None]) -> None:
        self._on_broken = on_broken
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="pgpubsub hub", daemon=True)
        self._calls: dict[Call[Any], None] = {}
        self._posted: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._turn = 0  # how often what was posted has been taken
        self._woken_for = 0  # the next turn will be this one, or one that comes soon
        self._broken: PubSubError | None = None
        self._ended = False
        self._finishing = False
        self._loop = asyncio.new_event_loop()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def discard(self) -> None:
        """End it, whether or not it has begun: it was not needed."""
        if self._thread.ident is None:
            self._loop.close()
        else:
            self.post(self._stop)

    def _stop(self) -> None:
        self._finishing = True
        self._loop.stop()

    def call(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Run a coroutine function there and return its outcome: see `run`."""
        return self.run(_Coroutine(function, args))

    def run(self, call: Call[T]) -> T:
        """Have `call` done there and return its outcome.

        Raises:
            Closed: the loop has ended.
            ConcurrentUse: called from its own thread, which it would stop, or in a forked child.
        """
        self.check_process()
        if sys.is_finalizing():
            raise Closed("the program is ending, and its threads have ended")
        if threading.current_thread() is self._thread:
            raise ConcurrentUse("the hub's own thread cannot wait for the hub: its observer must only take notes")
        try:
            self._begin(call)
            call.wait()
        except BaseException:
            self.post(call.cancel)
            raise
        finally:
            self._calls.pop(call, None)
        return self._result(call)

    async def call_for(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """The same as `call` for a task of another loop."""
        return await self.run_for(_AwaitedCoroutine(function, args))

    async def run_for(self, call: AwaitedCall[T]) -> T:
        """The same as `run` for a task of another loop, in which `call` was made."""
        self.check_process()
        try:
            self._begin(call)
            await call.ended
        except BaseException:
            self.post(call.cancel)
            raise
        finally:
            self._calls.pop(call, None)
        return self._result(call)

    def _result(self, call: Call[T]) -> T:
        try:
            return call.result()
        except Closed as error:
            if self._broken is None:
                raise
            raise again(self._broken) from error

    def _begin(self, call: Call[Any]) -> None:
        self._calls[call] = None
        if not self.post(call.start):
            call.end()

    def post(self, function: Callable[..., object], *args: Any) -> bool:
        """Have `function` called there soon. False when the loop has ended. May be called from anywhere, also by a
        signal handler that interrupts this.

        The loop is woken once for all that comes before it gets there, since waking it is a system call."""
        self._posted.append((function, args))
        turn = self._turn
        if self._woken_for <= turn:  # nobody has woken it for the next turn, and come to the point of saying so
            try:
                self._loop.call_soon_threadsafe(self._carry_out)
            except RuntimeError:
                return False
            self._woken_for = turn + 1
        return not self._ended

    def _carry_out(self) -> None:
        self._turn += 1
        posted = self._posted
        for _ in range(len(posted)):
            function, args = posted.popleft()
            try:
                function(*args)
            except Exception as error:
                self._loop.call_exception_handler({"message": f"{function!r} failed", "exception": error})

    def check_process(self) -> None:
        """Raise if this is a forked child, which has the loop but not the thread."""
        if os.getpid() != self._process:
            raise ConcurrentUse(
                f"this hub belongs to process {self._process}, and this is {os.getpid()}: make a hub here"
            )

    def finish(self, function: Callable[..., Coroutine[Any, Any, object]], *args: Any) -> None:
        """There: run a last coroutine function, then end the loop. May be repeated."""
        if self._finishing:
            return
        self._finishing = True
        task = self._loop.create_task(function(*args))
        task.add_done_callback(lambda task: self._loop.stop())

    def join(self, timeout: float) -> None:
        """Wait until it has ended, at most `timeout` seconds. In its own thread, do not."""
        if threading.current_thread() is not self._thread and not sys.is_finalizing():
            self._thread.join(timeout)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        broken_by: BaseException | None = None
        try:
            try:
                self._loop.run_forever()
            except BaseException as error:  # asyncio lets SystemExit and KeyboardInterrupt end the loop
                broken_by = error
            # Whoever raised one may raise another: that is not to keep the rest from being done.
            with suppress(SystemExit, KeyboardInterrupt):
                if broken_by is not None or not self._finishing:
                    cause = broken_by or RuntimeError("somebody stopped its event loop")
                    self._broken = PubSubError(f"the hub's thread was ended: {cause!r}")
                    self._broken.__cause__ = cause
                    self._finishing = True
                    self._on_broken(self._broken)
            with suppress(SystemExit, KeyboardInterrupt):
                self._wind_up()
        finally:
            self._loop.close()
            self._ended = True
            for call in tuple(self._calls):  # that nobody will begin any more
                call.end()

    def _wind_up(self) -> None:
        loop = self._loop
        loop.run_until_complete(asyncio.sleep(0))  # what was posted last
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
